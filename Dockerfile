# geocyclegan in a container, for the CPU and, with NVIDIA's container toolkit on the host, for CUDA:
#     docker build -t geocyclegan .
# PyTorch's packages bring CUDA with them. For a smaller image without it, name the package index of
# PyTorch's CPU builds (its installation page has it):
#     docker build -t geocyclegan:cpu --build-arg TORCH_INDEX=URL .
# BASE is any Debian or Ubuntu image with Python 3.11 or newer and its venv module, such as one of
# NVIDIA's with Python added.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG TORCH_INDEX=""
ARG EXTRAS="all"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/geocyclegan
ENV PATH=/opt/geocyclegan/bin:$PATH
# PyTorch first and apart: the layer that takes the time does not change with the code.
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch>=2.10"
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY geocyclegan ./geocyclegan
RUN pip install ".[${EXTRAS}]"

FROM ${BASE}
LABEL org.opencontainers.image.title="geocyclegan" \
      org.opencontainers.image.description="Translate whole georeferenced scenes between imaging domains" \
      org.opencontainers.image.licenses="Apache-2.0"
# torch.compile builds its kernels with a compiler at run time; nothing else needs one.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/geocyclegan /opt/geocyclegan
# Libraries keep their caches where any user of `docker run --user` may write, and ask for a name.
ENV PATH=/opt/geocyclegan/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    USER=geocyclegan \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# A broken installation stops the build, not the first run.
RUN geocyclegan --version && mkdir -p /work && chown 1000:1000 /work
WORKDIR /work
# No root: what a run writes belongs to this user, or to that of `docker run --user`.
USER 1000:1000
ENTRYPOINT ["geocyclegan"]
CMD ["--help"]
