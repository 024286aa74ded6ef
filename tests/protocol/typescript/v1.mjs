// The TypeScript SDK, version 1. Arguments: what to do as JSON, see ../test_typescript.py. Prints what it saw as JSON.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const wish = JSON.parse(process.argv[2]);
const transport = wish.url
  ? new StreamableHTTPClientTransport(new URL(wish.url), { requestInit: { headers: wish.headers } })
  : new StdioClientTransport({ command: wish.command, args: wish.args, env: wish.env, stderr: "inherit" });
const client = new Client({ name: "typescript-v1", version: "1.0.0" }, { capabilities: {} });
await client.connect(transport);
const listed = await client.listTools();
const answers = [];
for (const call of wish.calls) answers.push(await client.callTool(call));
console.log(JSON.stringify({ server: client.getServerVersion(), tools: listed.tools, answers }));
await client.close();
