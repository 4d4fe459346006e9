"""A folder to the Hugging Face hub, by its own library: https://huggingface.co/docs/huggingface_hub."""

from __future__ import annotations

from pathlib import Path

from harness.data import hub


def push(folder: Path, name: str, private: bool = True) -> str:
    """Uploads all files of `folder` in one commit to the model repository `name`, made where there is none.

    Args:
        name: Such as `me/birds`, or `birds` for one of whoever is logged in.
        private: Of a repository that is made now.

    Returns:
        Its address.

    Raises:
        ModuleNotFoundError: If huggingface_hub is not installed.
        ConnectionError: If the hub cannot be reached.
        ValueError: If nobody is logged in, or the hub refuses.
    """
    try:
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('--push needs huggingface_hub; run: pip install "blackbox-ranking[train]"') from error
    endpoint = hub.endpoint()
    if not (token := get_token()):
        raise ValueError("nobody is logged in to the Hugging Face hub: run `hf auth login`, or set HF_TOKEN")
    if fault := hub.fault():
        raise ConnectionError(f"{endpoint} cannot be reached ({fault}); nothing was uploaded")
    api = HfApi(endpoint=endpoint, token=token)
    try:
        repository = api.create_repo(name, private=private, exist_ok=True).repo_id
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload a trained model")
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        said = " ".join(str(error).split()).replace(token, "...")
        raise ValueError(f"{endpoint} did not take {name}: {said}") from None
    return f"{endpoint}/{repository}"
