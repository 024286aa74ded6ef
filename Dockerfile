# The HTTP server in a container. Not built or run where this was written: there was no container engine.
#   docker build -t mcp-ssh . && MCP_SSH_TOKEN=… docker compose up
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
# Beyond loopback only behind a proxy that ends TLS, which `--behind-proxy` promises.
CMD ["mcp-ssh", "serve", "--host", "0.0.0.0", "--port", "8754", "--behind-proxy"]
