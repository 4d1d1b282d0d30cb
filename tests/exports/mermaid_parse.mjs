// Parses each file by Mermaid's own parser; ends with an error for one that is no diagram.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.cwd()}/`);
const { JSDOM } = require("jsdom");
globalThis.window = new JSDOM("").window;
globalThis.document = window.document;
const { default: mermaid } = await import(pathToFileURL(`${process.cwd()}/node_modules/mermaid/dist/mermaid.core.mjs`));
for (const file of process.argv.slice(2)) {
    const text = readFileSync(file, "utf8");
    await mermaid.parse(text);
    const diagram = await mermaid.mermaidAPI.getDiagramFromText(text);
    const actors = [...diagram.db.getActors().values()].map((actor) => actor.description);
    const messages = diagram.db.getMessages().filter((message) => message.message !== undefined);
    console.log(JSON.stringify({ type: diagram.type, actors, messages: messages.map((one) => one.message) }));
}
