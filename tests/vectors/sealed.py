#!/usr/bin/env python3
"""Opens the golden sealed secret without any code of ours: HPKE (RFC 9180, base mode) from the RFCs.

X25519 is RFC 7748, ChaCha20-Poly1305 is RFC 8439, HKDF is RFC 5869; only hashlib and hmac are used.
Prints `ok`, or fails with what differs.
"""
import base64, hashlib, hmac, json, pathlib, struct, sys

P = 2**255 - 19


def x25519(k, u):
    k = int.from_bytes(k, "little") & ~7 & ~(128 << 8 * 31) | (64 << 8 * 31)
    u = int.from_bytes(u, "little") & (2**255 - 1)
    x1, x2, z2, x3, z3, swap = u, 1, 0, u, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def chacha_block(key, counter, nonce):
    start = list(struct.unpack("<16I", b"expand 32-byte k" + key + struct.pack("<I", counter) + nonce))
    s = start[:]
    def quarter(a, b, c, d):
        for x, y, z, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & 0xFFFFFFFF
            s[z] ^= s[x]
            s[z] = (s[z] << n | s[z] >> (32 - n)) & 0xFFFFFFFF
    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (1 + i) % 4, 8 + (2 + i) % 4, 12 + (3 + i) % 4)
    return struct.pack("<16I", *((x + y) & 0xFFFFFFFF for x, y in zip(s, start)))


def aead_open(key, nonce, sealed):
    text, tag = sealed[:-16], sealed[-16:]
    one = chacha_block(key, 0, nonce)
    r = int.from_bytes(one[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    padded = text + bytes(-len(text) % 16) + struct.pack("<QQ", 0, len(text))
    acc = 0
    for i in range(0, len(padded), 16):
        acc = (acc + int.from_bytes(padded[i : i + 16] + b"\1", "little")) * r % (2**130 - 5)
    acc = (acc + int.from_bytes(one[16:32], "little")) % 2**128
    assert acc.to_bytes(16, "little") == tag, "the tag differs: it was sealed for something else"
    stream = b"".join(chacha_block(key, 1 + i, nonce) for i in range(len(text) // 64 + 1))
    return bytes(x ^ y for x, y in zip(text, stream))


def extract(salt, label, ikm, suite):
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")


def expand(prk, label, info, length, suite):
    info = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info
    out, block = b"", b""
    while len(out) < length:
        block = hmac.digest(prk, block + info + bytes([len(out) // 32 + 1]), "sha256")
        out += block
    return out[:length]


def hpke_open(private, enc, info, sealed):
    kem = b"KEM" + struct.pack(">H", 0x0020)
    shared = extract(b"", b"eae_prk", x25519(private, enc), kem)
    public = x25519(private, (9).to_bytes(32, "little"))
    shared = expand(shared, b"shared_secret", enc + public, 32, kem)
    suite = b"HPKE" + struct.pack(">HHH", 0x0020, 0x0001, 0x0003)
    context = b"\0" + extract(b"", b"psk_id_hash", b"", suite) + extract(b"", b"info_hash", info, suite)
    secret = extract(shared, b"secret", b"", suite)
    key = expand(secret, b"key", context, 32, suite)
    nonce = expand(secret, b"base_nonce", context, 12, suite)
    return aead_open(key, nonce, sealed)


def main():
    vector = json.loads(pathlib.Path(sys.argv[1]).read_text())
    document = json.loads(vector["document"])
    secret = document[0]
    box = secret["boxes"][0]
    ids = b"".join(bytes.fromhex(vector[name]) for name in ("ledger", "agent", "requester", "nonce"))
    name = secret["name"].encode()
    info = b"countersign/secret/v1\n" + ids + struct.pack(">I", len(name)) + name
    private = bytes.fromhex(vector["private"])
    assert x25519(private, (9).to_bytes(32, "little")) == base64.b64decode(vector["sealing_key"])
    plain = hpke_open(private, base64.b64decode(box["enc"]), info, base64.b64decode(box["ciphertext"]))
    salt, length = plain[:32], struct.unpack(">I", plain[32:36])[0]
    value, padding = plain[36 : 36 + length], plain[36 + length :]
    assert value == vector["value"].encode() and not any(padding) and len(plain) % 256 == 0
    digest = hashlib.sha256(b"countersign/secret-value/v1\n" + salt + value).hexdigest()
    assert digest == secret["digest"], "the commitment differs"
    assert box["key_id"] == vector["agent"] and secret["delivery"] == "file"
    print("ok")


main()
