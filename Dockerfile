# The whole service in one image; what it needs at run time is one volume for its state.
#   docker build -t parley .  &&  docker run -p 8000:8000 -v parley:/var/lib/parley parley
# Nobody is let in without an access token. Where the volume has none yet, one is made and shown once, in the
# container's log (`serve --make-token`). More: docker exec CONTAINER parley token create --name laptop
# Hardened, as in compose.yaml: --read-only --tmpfs /tmp --cap-drop all --security-opt no-new-privileges
# Wheels in a folder wheels/ beside this file are used instead of an index and a compiler.
# Dockerfile.cuda has the same stages: `diff Dockerfile Dockerfile.cuda` shows what CUDA takes.

ARG BASE_IMAGE=debian:bookworm-slim
ARG RUN_IMAGE=${BASE_IMAGE}

# --- build: a virtual environment in which everything is installed ------------------------------------
FROM ${BASE_IMAGE} AS build
ENV DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv libopenblas0 libgomp1 \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
COPY wheel[s] /wheels/
# One line per package: llama.cpp is compiled, everything else comes as a wheel with the locked hash.
# What is installed lies in /used, so that the bill of materials is of those very files.
RUN mkdir -p /wheels /used \
 && sed -e ':a' -e '/\\$/N; s/\\\n//; ta' requirements.lock > all.lock \
 && grep '^llama-cpp-python==' all.lock > compiled.lock && grep -v '^llama-cpp-python==' all.lock > wheels.lock \
 && { ! ls /wheels/*.whl >/dev/null 2>&1 || echo '--no-index --find-links /wheels' > offline.txt; } && touch offline.txt \
 && python3 -m venv /build && /build/bin/pip install $(cat offline.txt) --no-deps --require-hashes -r requirements-build.lock \
 && python3 -m venv /opt/parley/.venv \
 && /build/bin/pip download $(cat offline.txt) --no-deps --require-hashes --only-binary :all: --dest /used -r wheels.lock \
 && /opt/parley/.venv/bin/pip install --no-index --find-links /used --no-deps --require-hashes -r wheels.lock
# For any x86-64 processor: the kernels for each kind are libraries of their own, and the best that
# runs is loaded (deploy/setup/wheels.py has the same flags). On ARM this takes a compiler newer than
# Debian 12's: there, --build-arg CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_BLAS=ON -DGGML_BLAS_VENDOR=OpenBLAS".
ARG CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON -DGGML_BACKEND_DIR:STRING=llama_cpp/lib -DGGML_BLAS=ON -DGGML_BLAS_VENDOR=OpenBLAS"
ARG BUILD_PACKAGES="build-essential cmake ninja-build pkg-config libopenblas-dev"
RUN ls /wheels/llama_cpp_python-*.whl >/dev/null 2>&1 \
 || { apt-get update && apt-get install -y --no-install-recommends ${BUILD_PACKAGES} \
   && CMAKE_ARGS="${CMAKE_ARGS}" /build/bin/pip wheel --no-deps --no-build-isolation --require-hashes \
      --no-binary llama-cpp-python --wheel-dir /wheels -r compiled.lock; }
RUN cp /wheels/llama_cpp_python-*.whl /used && /opt/parley/.venv/bin/pip install --no-deps --no-index /used/llama_cpp_python-*.whl
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY deploy/setup deploy/setup
RUN /build/bin/pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir /wheels . \
 && /opt/parley/.venv/bin/pip install --no-deps --no-index /wheels/parley-*.whl \
 && /opt/parley/.venv/bin/python -m compileall -q /opt/parley/.venv/lib
# What is in /opt/parley, in CycloneDX's JSON; packages of the distribution are in its own database.
ARG VERSION=dev
RUN python3 -B -m deploy.setup.sbom /used --version "${VERSION}" --model service/models/pocket.gguf > /opt/parley/sbom.cdx.json

# --- runtime: the interpreter, two libraries, and that environment -------------------------------------
FROM ${RUN_IMAGE} AS runtime
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 libopenblas0 libgomp1 \
 && rm -rf /var/lib/apt/lists/*
# Numbers, so that owners of volumes and "run as non-root" need no look at a passwd file.
RUN groupadd -g 10001 parley && useradd -u 10001 -g 10001 -M -d /var/lib/parley -s /usr/sbin/nologin parley \
 && install -d -o 10001 -g 10001 -m 750 /var/lib/parley
COPY --from=build /opt/parley /opt/parley
ENV PATH=/opt/parley/.venv/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/lib/parley \
    PARLEY_STATE_DIR=/var/lib/parley \
    PARLEY_API__HOST=0.0.0.0 \
    PARLEY_MODEL__STAND_IN=pocket
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="parley" \
      org.opencontainers.image.description="A private chat service on a local model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
WORKDIR /
USER 10001:10001
VOLUME ["/var/lib/parley"]
EXPOSE 8000
# It drains: `docker stop --time 45`, or stop_grace_period in compose.yaml.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 CMD ["parley", "health"]
# The supervisor is process 1: it gets the signal itself and buries what is orphaned.
ENTRYPOINT ["parley"]
CMD ["serve", "--make-token"]
