# The HTTP server in a container. Built and run with buildah, podman and runc on stand-ins for the base image (Debian 12 with
# Python 3.11, and 3.12), since no image registry could be reached where this was written; not with Docker or the real base.
#   docker build -t ssh-steward . && MCP_SSH_TOKEN=… docker compose up
# Its digest could not be looked up for the same reason, and none is made up: to pin it, name it with its digest,
#   docker build --build-arg BASE=python:3.12-slim@sha256:… -t ssh-steward .
ARG BASE=python:3.12-slim
FROM ${BASE}
COPY requirements.txt /src/
RUN pip install --no-cache-dir --require-hashes -r /src/requirements.txt
COPY pyproject.toml README.md LICENSE /src/
COPY mcp_ssh /src/mcp_ssh
COPY rest_bridge /src/rest_bridge
COPY prompts /src/prompts
RUN pip install --no-cache-dir --no-deps --no-build-isolation /src && useradd --create-home --uid 1000 mcp && install -d -o mcp -m 700 /state
USER mcp
ENV MCP_SSH_HOME=/state
VOLUME /state
EXPOSE 8754
HEALTHCHECK --start-period=10s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8754/', timeout=5)"]
# Beyond loopback only behind a proxy that ends TLS, which `--behind-proxy` promises.
CMD ["ssh-steward", "serve", "--host", "0.0.0.0", "--port", "8754", "--behind-proxy"]
