// Calls the verifier: bytes in, verdict out. The same in a browser and in Node.

/** Bytes of WebAssembly to a function (bundle, ledger) → { report, is_suspect, text } or { error }. */
export async function load(bytes) {
  const { instance } = await WebAssembly.instantiate(bytes, {});
  const wasm = instance.exports;
  return (bundle, ledger = "") => {
    const pin = new TextEncoder().encode(ledger.trim().padEnd(64));
    const room = wasm.countersign_room(pin.length + bundle.length);
    // Asked for anew each time: memory that grows moves.
    const memory = new Uint8Array(wasm.memory.buffer);
    memory.set(pin, room);
    memory.set(bundle, room + pin.length);
    const len = wasm.countersign_verify();
    const at = wasm.countersign_verdict();
    return JSON.parse(new TextDecoder().decode(new Uint8Array(wasm.memory.buffer, at, len)));
  };
}
