// Checks bundles with the page's own WebAssembly, in Node: check.mjs FOLDER LEDGER BUNDLE
// One bundle that holds, and the same with one bit changed in many places, which must not.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, ledger, path] = process.argv.slice(2);
const { load } = await import(pathToFileURL(join(folder, "verify.js")));
const verify = await load(await readFile(join(folder, "countersign_verifier.wasm")));
const bundle = new Uint8Array(await readFile(path));

const honest = verify(bundle, ledger);
if (!honest.report?.ok || !honest.report.pinned) {
  console.error("an honest bundle does not hold:", honest);
  process.exit(1);
}
const other = verify(bundle, "0".repeat(64));
if (other.report.first_bad?.name !== "other_ledger") {
  console.error("another ledger was taken for this one:", other);
  process.exit(1);
}
const places = 97;
for (let place = 0; place < places; place += 1) {
  const at = Math.floor((bundle.length * place) / places);
  const changed = bundle.slice();
  changed[at] ^= 1 << place % 8;
  const { report } = verify(changed, ledger);
  if (report.ok) {
    console.error(`a changed bit in byte ${at} was not seen`);
    process.exit(1);
  }
}
console.log(`ok: ${honest.report.entries} entries hold; ${places} changed bits were seen`);
