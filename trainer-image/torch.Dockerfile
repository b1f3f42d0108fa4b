# PyTorch and what it needs, alone: the one big layer that the trainer and the servers share.
# From the repository's root: docker build -f trainer-image/torch.Dockerfile -t hone-torch .
# BASE_IMAGE: any Debian-like image with Python 3.11 (and pip, unless uv is mounted at /usr/local/bin/uv).
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm
FROM ${BASE_IMAGE}
RUN echo 'hone:x:65532:65532::/tmp:/usr/sbin/nologin' >> /etc/passwd && echo 'hone:x:65532:' >> /etc/group
COPY dev/images/install-lock dev/uv.lock trainer-image/torch.lock /opt/hone-build/
RUN /opt/hone-build/install-lock /opt/hone-build/torch.lock /opt/hone-build/uv.lock
# Only /tmp can be written in a container: every cache and lookup of the user goes there.
ENV PATH=/opt/hone/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    USER=hone \
    LOGNAME=hone \
    XDG_CACHE_HOME=/tmp/.cache \
    XDG_CONFIG_HOME=/tmp/.config \
    HF_HOME=/tmp/.cache/huggingface \
    TORCH_HOME=/tmp/.cache/torch \
    TORCH_EXTENSIONS_DIR=/tmp/.cache/torch_extensions \
    TORCHINDUCTOR_CACHE_DIR=/tmp/.cache/torchinductor \
    TRITON_HOME=/tmp \
    TRITON_CACHE_DIR=/tmp/.cache/triton \
    NUMBA_CACHE_DIR=/tmp/.cache/numba \
    MPLCONFIGDIR=/tmp/.cache/matplotlib
USER 65532:65532
WORKDIR /tmp
