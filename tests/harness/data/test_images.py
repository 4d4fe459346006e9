from harness.data import images


def test_files_are_told_apart_by_what_they_hold_or_if_there_is_much_of_it_by_their_size(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, content in zip(paths, ("1", "2", "12"), strict=True):
        path.write_text(content)
    assert len(set(images.file_marks(paths))) == 3
    monkeypatch.setattr(images, "MARKED_BY_CONTENT", 3)
    assert images.file_marks(paths) == ["1 bytes", "1 bytes", "2 bytes"]
