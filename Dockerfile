# faceage serve on CPUs:
#   docker build -t faceage . && docker run --rm -p 127.0.0.1:8000:8000 faceage
FROM python:3.12-slim AS build
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /wheels

FROM python:3.12-slim
# The index of PyTorch's CPU builds, which are ten times smaller than the default ones. Empty takes the
# default ones: --build-arg TORCH_INDEX=
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# OpenCV needs two system libraries.
RUN apt-get update && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url $TORCH_INDEX} torch torchvision \
    && pip install --no-cache-dir "$(echo /wheels/*.whl)[serve]" \
    && rm -r /wheels \
    && useradd --create-home faceage
USER faceage
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz')"]
ENTRYPOINT ["faceage"]
CMD ["serve", "--host", "0.0.0.0"]
