// Validates HAR files against the schema of HAR 1.2.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { har } = createRequire(`${process.cwd()}/`)("har-validator");
for (const file of process.argv.slice(2)) await har(JSON.parse(readFileSync(file, "utf8")));
