# The environment that `make setup` makes, from requirements.lock, in a container.
# In the folder of a clone:
#   docker build --tag interlace .                                  for a CPU
#   docker build --tag interlace-cuda --build-arg DEVICE=cuda .     for NVIDIA GPUs
#   docker run --rm -it -p 8888:8888 interlace                      JupyterLab
#   docker run --rm -it --gpus all --ipc host interlace-cuda bash   a shell that sees the GPUs
ARG DEVICE=cpu
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS base-cpu
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 reader

# torch brings CUDA's libraries itself; DeepSpeed and FlashAttention need its compiler, too
FROM nvidia/cuda:13.0.1-cudnn-devel-ubuntu24.04 AS base-cuda
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        build-essential git make ninja-build python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
# the image's own user has the number that the owner of a clone usually has
RUN usermod --login reader ubuntu

FROM base-${DEVICE}
ARG DEVICE
RUN install --directory --owner reader /interlace /opt/venv
USER reader
WORKDIR /interlace
# outside the clone's folder, where a development container mounts the clone
ENV INTERLACE_VENV=/opt/venv \
    PATH=/opt/venv/bin:$PATH
# only what the packages depend on, so that a change of the code does not install them again
COPY --chown=reader Makefile pyproject.toml setup.py MANIFEST.in README.md LICENSE settings.ini ./
COPY --chown=reader requirements.lock requirements-smollm2.lock ./
COPY --chown=reader interlace/__init__.py interlace/
COPY --chown=reader lab/ipython_kernel_config.py lab/overrides.json lab/
RUN make setup \
    && rm -rf "$HOME/.cache"
# FlashAttention is compiled, which takes long; MAX_JOBS limits the memory that it takes
ARG MAX_JOBS=4
# pip refuses an editable project beside constraints with hashes, so only the versions are kept
RUN if [ "$DEVICE" = cuda ]; then \
        sed -n 's/^\([A-Za-z0-9._-]*==[^ ;]*\).*/\1/p' requirements.lock > constraints.txt \
        && python -m pip install --no-cache-dir --no-build-isolation \
            --constraint constraints.txt --editable '.[gpu]' \
        && rm constraints.txt; \
    fi
COPY --chown=reader . .
EXPOSE 8888
CMD ["make", "lab", "LAB=--ip=0.0.0.0 --no-browser"]
