// The page: a file is dropped, its verdict is shown. Text goes in as text, never as markup.
import { load } from "./verify.js";

const drop = document.getElementById("drop");
const file = document.getElementById("file");
const ledger = document.getElementById("ledger");
const verdict = document.getElementById("verdict");

const verifier = fetch("countersign_verifier.wasm")
  .then((answer) => answer.arrayBuffer())
  .then(load);

function show(kind, title, text) {
  verdict.className = kind;
  verdict.hidden = false;
  verdict.querySelector("h2").textContent = title;
  verdict.querySelector("pre").textContent = text;
}

async function check(bundle) {
  if (!bundle) return;
  show("", "Checking…", bundle.name);
  try {
    const verify = await verifier;
    const bytes = new Uint8Array(await bundle.arrayBuffer());
    const { error, report, is_suspect, text } = verify(bytes, ledger.value);
    if (error) show("bad", "No verdict", error);
    else if (!report.ok) show("bad", "It does not hold", text);
    else if (is_suspect) show("suspect", "It holds, and a part of it is under suspicion", text);
    else show("ok", report.pinned ? "It holds" : "It holds in itself; no ledger was pinned", text);
  } catch (problem) {
    show("bad", "No verdict", `This browser could not check it: ${problem}`);
  }
}

file.addEventListener("change", () => check(file.files[0]));
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  check(event.dataTransfer.files[0]);
});
