# The whole environment of requirements.lock, whose torch brings CUDA's libraries (6 GB). On a CPU, or with BASE on CUDA's:
#   docker build -t ranking .
#   docker build -t ranking --build-arg BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 .
#   docker run --rm [--gpus all] -v "$PWD/data:/ranking/data" -v "$PWD/outputs:/ranking/outputs" ranking train experiment=demo_rambo
ARG BASE=ubuntu:24.04
FROM ${BASE}

# git tells the revision of a run, g++ builds what a wheel lacks and Triton's kernels
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git make python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /ranking
COPY requirements.lock ./
RUN python3 -m venv .venv && .venv/bin/python -m pip install --no-cache-dir --requirement requirements.lock

COPY . .
RUN .venv/bin/python -m pip install --no-cache-dir --no-deps --editable . \
    && touch .venv/.ready \
    && git config --system --add safe.directory /ranking

ENV PATH=/ranking/.venv/bin:$PATH
ENTRYPOINT ["ranking"]
CMD ["--help"]
