// Judges payloads with nothing but JavaScript's own JSON: lines of hex in, `legal` or `refused`
// out, line by line. The same question as `check.py --judge`, asked of a third implementation.

import { createInterface } from "node:readline";

const MAX_PAYLOAD_BYTES = 16 * 1024;
const MAX_DEPTH = 8;

class Flaw extends Error {}

function demand(holds, what) {
  if (!holds) throw new Flaw(what);
}

// RFC 8785 for this profile. JSON.parse silently keeps the last of two equal keys and rounds large
// numbers: both show when the result is written again and compared.
function canonical(value, depth) {
  switch (typeof value) {
    case "boolean":
      return String(value);
    case "number":
      demand(Number.isSafeInteger(value), "no integer of at most 2^53-1");
      return JSON.stringify(value);
    case "string":
      demand(value.isWellFormed(), "a lone surrogate");
      return JSON.stringify(value);
    case "object": {
      demand(value !== null, "null");
      demand(depth < MAX_DEPTH, "nested deeper than 8");
      if (Array.isArray(value)) {
        return `[${value.map((item) => canonical(item, depth + 1)).join(",")}]`;
      }
      const field = (key) => {
        demand(/^[a-z0-9_]+$/.test(key), `the key ${key}`);
        return `${JSON.stringify(key)}:${canonical(value[key], depth + 1)}`;
      };
      return `{${Object.keys(value).sort().map(field).join(",")}}`;
    }
    default:
      throw new Flaw("a value of no allowed type");
  }
}

function isLegal(bytes) {
  try {
    demand(bytes.length <= MAX_PAYLOAD_BYTES, "more than 16 KiB");
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    const value = JSON.parse(text);
    demand(typeof value === "object" && !Array.isArray(value), "no object at the top");
    return canonical(value, 0) === text;
  } catch (error) {
    if (error instanceof Flaw || error instanceof SyntaxError) return false;
    // Invalid UTF-8 is a TypeError, far too deep nesting a RangeError.
    if (error instanceof TypeError || error instanceof RangeError) return false;
    throw error;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(isLegal(Buffer.from(line, "hex")) ? "legal" : "refused");
}
