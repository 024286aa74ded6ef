# The HTTP server in a container.
#   MCP_SSH_TOKEN=… docker compose up
# Built with buildah 1.28 and run with podman 4.3, whose only base image was a stand-in for python:3.12-slim (Debian 12
# with Python 3.12): requests, SIGTERM and a second start with the same volume. Not run: the real base, Docker's engine.
FROM python:3.12-slim
COPY pyproject.toml constraints.txt README.md /src/
COPY mcp_ssh /src/mcp_ssh
COPY rest_bridge /src/rest_bridge
COPY prompts /src/prompts
RUN pip install --no-cache-dir -c /src/constraints.txt /src && useradd --create-home --uid 1000 mcp && install -d -o mcp -m 700 /state
USER mcp
ENV MCP_SSH_HOME=/state
VOLUME /state
EXPOSE 8754
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8754/', timeout=5)"]
# Beyond loopback only behind a proxy that ends TLS, which `--behind-proxy` promises.
CMD ["mcp-ssh", "serve", "--host", "0.0.0.0", "--port", "8754", "--behind-proxy"]
