// The TypeScript SDK, version 2. Arguments: what to do as JSON, see ../test_typescript.py. Prints what it saw as JSON.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

const wish = JSON.parse(process.argv[2]);
const transport = wish.url
  ? new StreamableHTTPClientTransport(new URL(wish.url), { requestInit: { headers: wish.headers } })
  : new StdioClientTransport({ command: wish.command, args: wish.args, env: wish.env, stderr: "inherit" });
const era = wish.mode ? { versionNegotiation: { mode: wish.mode } } : {};
const client = new Client({ name: "typescript-v2", version: "1.0.0" }, { capabilities: {}, ...era });
await client.connect(transport);
const listed = await client.listTools();
const answers = [];
for (const call of wish.calls) answers.push(await client.callTool(call));
const version = client.getNegotiatedProtocolVersion();
console.log(JSON.stringify({ server: client.getServerVersion(), version, tools: listed.tools, answers }));
await client.close();
