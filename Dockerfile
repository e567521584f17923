# Tidemill in a container, serving one model under TensorFlow Serving's flags: docker build -t tidemill .
# Its steps are run by tests/docs/test_container.py.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
WORKDIR /build
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m venv /opt/tidemill
RUN PIP_CONSTRAINT=constraints.txt /opt/tidemill/bin/python -m pip install --no-cache-dir -c constraints.txt ".[openvino,otel]"

# The model of this image: y = x / 2. For yours, put here instead: COPY path/to/your/model /models/my_model
FROM build AS model
RUN /opt/tidemill/bin/python -c "from pathlib import Path; from tidemill.kit.install import install; install(['half'], Path('/models'))" \
    && mv /models/half /models/my_model && rm -f /models/.kit.lock

FROM python:${PYTHON}-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/tidemill --create-home tidemill
COPY --from=build /opt/tidemill /opt/tidemill
COPY --from=model /models /models
ENV PATH=/opt/tidemill/bin:$PATH \
    TIDEMILL_DATA_DIR=/var/lib/tidemill \
    TIDEMILL_LOG_FORMAT=json
USER tidemill
VOLUME /var/lib/tidemill
EXPOSE 8500 8501
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8501/readyz', timeout=4)"]
# --insecure: within the container every address is its own; what is published is decided outside, see compose.yaml.
CMD ["tensorflow_model_server", "--host=0.0.0.0", "--insecure", "--port=8500", "--rest_api_port=8501", "--model_name=my_model", "--model_base_path=/models/my_model"]
