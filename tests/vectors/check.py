#!/usr/bin/env python3
"""Checks the golden vectors of countersign without any of its code.

It uses Python's own json and hashlib, `ssh-keygen -Y verify` and `openssl pkeyutl`, and follows
docs/PROTOCOL.md section by section, so it can be read as a second description of the bytes.

    check.py [--vectors DIR] [SECTION ...]   all sections, or those named; exit 1 at the first flaw
    check.py --judge                         lines of hex in, `legal` or `refused` out, line by line
"""

import argparse
import base64
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


class Flaw(Exception):
    """Something is not as the protocol says."""


def demand(holds, what):
    if not holds:
        raise Flaw(what)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def u16(n):
    return n.to_bytes(2, "big")


def u32(n):
    return n.to_bytes(4, "big")


def string(data):
    """SSH's string: a u32 length and the bytes."""
    return u32(len(data)) + data


class Reader:
    """Takes fields off the front of a buffer."""

    def __init__(self, data):
        self.data = data

    def take(self, count):
        demand(len(self.data) >= count, "the bytes end early")
        field, self.data = self.data[:count], self.data[count:]
        return field

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def string(self):
        return self.take(self.number(4))

    def end(self):
        demand(not self.data, "bytes follow the end")


# 1. Payloads: one legal encoding


MAX_PAYLOAD_BYTES = 16 * 1024
MAX_DEPTH = 8
MAX_INTEGER = 2**53 - 1
KEY = re.compile(r"[a-z0-9_]+")


def no_duplicates(pairs):
    demand(len({key for key, _ in pairs}) == len(pairs), "a key stands twice")
    return dict(pairs)


def refuse_number(text):
    raise Flaw(f"the number {text} is no integer")


def in_profile(value, depth):
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        demand(abs(value) <= MAX_INTEGER, "an integer past 2^53-1")
    elif isinstance(value, str):
        # Lone surrogates have no UTF-8 form: encoding the result fails on them.
        pass
    elif isinstance(value, (dict, list)):
        demand(depth < MAX_DEPTH, "nested deeper than 8")
        for item in value.values() if isinstance(value, dict) else value:
            in_profile(item, depth + 1)
        if isinstance(value, dict):
            for key in value:
                demand(KEY.fullmatch(key), f"the key {key!r}")
    else:
        raise Flaw(f"a value of no allowed type: {value!r}")


def canonical(value):
    """RFC 8785 for this profile: with ASCII keys and integers nothing is left to decide."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8")


def parse_payload(data):
    """The payload's value; a Flaw unless these bytes are its one legal encoding."""
    demand(len(data) <= MAX_PAYLOAD_BYTES, "more than 16 KiB")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=no_duplicates,
            parse_float=refuse_number,
            parse_constant=refuse_number,
        )
        demand(isinstance(value, dict), "no object at the top")
        in_profile(value, 0)
        demand(canonical(value) == data, "not in canonical form")
    except (ValueError, RecursionError) as error:
        raise Flaw(str(error)) from error
    return value


def is_legal(data):
    try:
        parse_payload(data)
    except Flaw:
        return False
    return True


def case_bytes(case):
    if "hex" in case:
        return bytes.fromhex(case["hex"])
    text = case["text"] + case.get("repeat", "") * case.get("times", 0) + case.get("end", "")
    return text.encode("utf-8")


def check_canonical(vectors):
    cases = json.loads((vectors / "canonical.json").read_text("utf-8"))
    for case in cases:
        legal = is_legal(case_bytes(case))
        demand(legal == case["legal"], f"canonical: {case['name']}: judged {legal}")
    return len(cases)


# 1. Statements


def public_key_blob(line):
    kind, blob = line.split(" ")[:2]
    blob = base64.b64decode(blob, validate=True)
    demand(Reader(blob).string() == kind.encode(), "the key's kind stands twice and differs")
    return blob


def statement_id(namespace, payload):
    head = b"countersign/statement/v1\n"
    return sha256(head, u16(len(namespace)), namespace, u32(len(payload)), payload)


def armour(blob):
    text = base64.b64encode(blob).decode()
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""])


def unarmour(text):
    lines = text.strip().split("\n")
    demand(lines[0] == "-----BEGIN SSH SIGNATURE-----", "no SSH signature")
    demand(lines[-1] == "-----END SSH SIGNATURE-----", "the signature has no end")
    return base64.b64decode("".join(lines[1:-1]), validate=True)


def signed_data(namespace, payload):
    digest = hashlib.sha512(payload).digest()
    return b"SSHSIG" + string(namespace) + string(b"") + string(b"sha512") + string(digest)


def parse_sshsig(blob):
    """Public key blob, namespace and signature blob of an SSHSIG."""
    fields = Reader(blob)
    demand(fields.take(6) == b"SSHSIG" and fields.number(4) == 1, "no SSHSIG of version 1")
    key, namespace = fields.string(), fields.string()
    demand(fields.string() == b"", "reserved is not empty")
    demand(fields.string() == b"sha512", "another hash than sha512")
    signature = fields.string()
    fields.end()
    return key, namespace, signature


def raw_ed25519(key_blob, signature_blob, tbs):
    """The Ed25519 key, message and signature under an SSH signature."""
    key, signature = Reader(key_blob), Reader(signature_blob)
    kind = key.string()
    demand(signature.string() == kind, "the signature is of another kind than its key")
    point, raw = key.string(), signature.string()
    message = tbs
    if kind == b"sk-ssh-ed25519@openssh.com":
        application = key.string()
        demand(application == b"ssh:", "a security key of another application")
        flags, counter = signature.take(1), signature.take(4)
        demand(flags[0] & 0x01, "the security key was not touched")
        demand(not flags[0] & 0xC0, "flags that no SSH signature has")
        message = sha256(application) + flags + counter + sha256(tbs)
    else:
        demand(kind == b"ssh-ed25519", f"a key of kind {kind!r}")
    key.end()
    signature.end()
    return point, message, raw


def load_statements(vectors):
    files = sorted((vectors / "statements").glob("*.json"))
    demand(files, "there are no statement vectors")
    return [json.loads(file.read_text("utf-8")) for file in files]


def check_statements(vectors):
    vectors_read = load_statements(vectors)
    for vector in vectors_read:
        kind = vector["kind"]
        payload = vector["payload"].encode("utf-8")
        said = parse_payload(payload)
        namespace = vector["namespace"].encode()
        demand(namespace == f"{kind}.v1@countersign".encode(), f"{kind}: namespace")
        key = public_key_blob(vector["public_key"])
        demand(sha256(key).hex() == vector["key_id"], f"{kind}: key_id")
        demand(said["signer"] == vector["key_id"], f"{kind}: the payload names another signer")
        id_ = statement_id(namespace, payload).hex()
        demand(id_ == vector["statement_id"], f"{kind}: statement_id")
        signature = unarmour(vector["signature"])
        demand(armour(signature) == vector["signature"], f"{kind}: armour")
        demand(parse_sshsig(signature)[:2] == (key, namespace), f"{kind}: key and namespace")
    return len(vectors_read)


# 1. Signatures, by ssh-keygen and by OpenSSL


def run(command, **options):
    try:
        done = subprocess.run(command, capture_output=True, check=False, **options)
    except FileNotFoundError as error:
        raise Flaw(f"{command[0]} is not installed; install it to check the vectors") from error
    demand(done.returncode == 0, f"{' '.join(command)}: {(done.stdout + done.stderr).decode()}")


def ssh_keygen_verifies(folder, signer, namespace, key_blob, signature, payload):
    kind = Reader(key_blob).string().decode()
    line = f"{signer} {kind} {base64.b64encode(key_blob).decode()}\n"
    (folder / "allowed").write_text(line)
    (folder / "sig").write_text(armour(signature))
    run(
        ["ssh-keygen", "-Y", "verify", "-n", namespace.decode(), "-I", signer]
        + ["-f", str(folder / "allowed"), "-s", str(folder / "sig")],
        input=payload,
    )


def openssl_verifies(folder, point, message, signature):
    # SubjectPublicKeyInfo of an Ed25519 key is a fixed prefix and the key.
    prefix = bytes.fromhex("302a300506032b6570032100")
    (folder / "key").write_bytes(prefix + point)
    (folder / "message").write_bytes(message)
    (folder / "raw").write_bytes(signature)
    run(
        ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER"]
        + ["-inkey", str(folder / "key"), "-in", str(folder / "message")]
        + ["-sigfile", str(folder / "raw")]
    )


def check_signatures(vectors):
    """Every statement: one a kind, and every entry of the log."""
    said = [
        (v["signer"], v["payload"].encode("utf-8"), unarmour(v["signature"]))
        for v in load_statements(vectors)
    ]
    for line, entry in load_log(vectors):
        said.append((line["signer"], entry["payload"], entry["signature"]))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for signer, payload, signature in said:
            key, namespace, inner = parse_sshsig(signature)
            ssh_keygen_verifies(folder, signer, namespace, key, signature, payload)
            tbs = signed_data(namespace, payload)
            openssl_verifies(folder, *raw_ed25519(key, inner, tbs))
    return len(said)


# 2. Entries, chain and tree


def leaf_hash(data):
    return sha256(b"\x00", data)


def node_hash(left, right):
    return sha256(b"\x01", left, right)


def parse_entry(data):
    demand(len(data) <= 32 * 1024, "an entry over 32 KiB")
    fields = Reader(data)
    demand(fields.take(21) == b"countersign/entry/v1\n", "it does not begin as an entry")
    entry = {
        "seq": fields.number(8),
        "time_us": fields.number(8),
        "prev": fields.take(32),
        "key_id": fields.take(32),
        "namespace": fields.take(fields.number(2)),
        "payload": fields.string(),
        "signature": fields.string(),
    }
    fields.end()
    return entry


def load_log(vectors):
    lines = (vectors / "log" / "entries.jsonl").read_text("utf-8").splitlines()
    parsed = [json.loads(line) for line in lines]
    return [(line, parse_entry(base64.b64decode(line["entry"]))) for line in parsed]


def load_ledger(vectors):
    return json.loads((vectors / "log" / "ledger.json").read_text("utf-8"))


def load_leaves(vectors):
    return [bytes.fromhex(line["leaf"]) for line, _ in load_log(vectors)]


def split(size):
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def root(leaves):
    """MTH of RFC 6962, 2.1."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node_hash(root(leaves[:k]), root(leaves[k:]))


def check_log(vectors):
    ledger = load_ledger(vectors)
    prev, time, ids, leaves = bytes(32), 0, set(), []
    for seq, (line, entry) in enumerate(load_log(vectors)):
        data = base64.b64decode(line["entry"])
        demand(entry["seq"] == line["seq"] == seq, f"entry {seq}: number")
        demand(entry["time_us"] == line["time_us"] >= time, f"entry {seq}: time")
        demand(entry["prev"].hex() == line["prev"] == prev.hex(), f"entry {seq}: link")
        demand(leaf_hash(data).hex() == line["leaf"], f"entry {seq}: leaf")
        demand(entry["namespace"].decode() == line["namespace"], f"entry {seq}: namespace")
        key, namespace, _ = parse_sshsig(entry["signature"])
        demand(namespace == entry["namespace"], f"entry {seq}: namespace of the signature")
        demand(sha256(key) == entry["key_id"], f"entry {seq}: key_id")
        demand(entry["key_id"].hex() == line["key_id"], f"entry {seq}: key_id as listed")
        said = parse_payload(entry["payload"])
        demand(said["signer"] == line["key_id"], f"entry {seq}: signer")
        id_ = statement_id(namespace, entry["payload"])
        demand(id_.hex() == line["statement_id"], f"entry {seq}: statement_id")
        demand(id_ not in ids, f"entry {seq}: said before")
        if seq == 0:
            demand(said["origin"] == ledger["origin"], "genesis names another origin")
        else:
            demand(said["ledger"] == ledger["ledger_id"], f"entry {seq}: for another ledger")
            seen = said["seen"]
            demand(1 <= seen["size"] <= seq, f"entry {seq}: the size it has seen")
            demand(seen["root"] == root(leaves[: seen["size"]]).hex(), f"entry {seq}: seen root")
        prev, time = leaf_hash(data), entry["time_us"]
        ids.add(id_)
        leaves.append(prev)
    demand(leaves and leaves[0].hex() == ledger["ledger_id"], "ledger_id is not the first leaf")
    demand(len(leaves) == ledger["size"], "the log has another size")
    roots = [root(leaves[:size]).hex() for size in range(len(leaves) + 1)]
    demand(roots == ledger["roots"], "a root differs")
    return len(leaves)


# 4. Proofs and checkpoints


def path(index, leaves):
    """PATH of RFC 6962, 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if index < k:
        return path(index, leaves[:k]) + [root(leaves[k:])]
    return path(index - k, leaves[k:]) + [root(leaves[:k])]


def subproof(old, leaves, known):
    """SUBPROOF of RFC 6962, 2.1.2."""
    if old == len(leaves):
        return [] if known else [root(leaves)]
    k = split(len(leaves))
    if old <= k:
        return subproof(old, leaves[:k], known) + [root(leaves[k:])]
    return subproof(old - k, leaves[k:], False) + [root(leaves[:k])]


def hexes(hashes):
    return [hash_.hex() for hash_ in hashes]


def check_proofs(vectors):
    leaves = load_leaves(vectors)
    proofs = json.loads((vectors / "log" / "proofs.json").read_text("utf-8"))
    for proof in proofs["inclusion"]:
        index, size = proof["index"], proof["size"]
        demand(proof["proof"] == hexes(path(index, leaves[:size])), f"inclusion of {index}")
    for proof in proofs["consistency"]:
        old, new = proof["old"], proof["new"]
        made = hexes(subproof(old, leaves[:new], True))
        demand(proof["proof"] == made, f"consistency of {old}")
    places = {proof["index"] for proof in proofs["inclusion"]}
    demand(places == set(range(len(leaves))), "an entry has no inclusion proof")
    return len(proofs["inclusion"]) + len(proofs["consistency"])


def check_checkpoints(vectors):
    ledger, leaves = load_ledger(vectors), load_leaves(vectors)
    origin, rest = ledger["verifier_key"].split("+", 1)
    hash_, typed = rest.split("+", 1)
    typed = base64.b64decode(typed, validate=True)
    demand(typed[:1] == b"\x01" and len(typed) == 33, "no Ed25519 verifier key")
    demand(sha256(origin.encode(), b"\n", typed)[:4].hex() == hash_, "the verifier key's hash")
    listed = Reader(public_key_blob(ledger["checkpoint_key"]))
    demand((listed.string(), listed.string()) == (b"ssh-ed25519", typed[1:]), "checkpoint key")
    notes = sorted((vectors / "log").glob("checkpoint-*.txt"))
    demand(len(notes) >= 2, "checkpoints are missing")
    with tempfile.TemporaryDirectory() as name:
        for file in notes:
            body, signature = file.read_text("utf-8").split("\n\n")
            body += "\n"
            lines = body.split("\n")
            size = int(lines[1])
            demand(f"checkpoint-{size}.txt" == file.name, f"{file.name}: size")
            expected = base64.b64encode(root(leaves[:size])).decode()
            demand(lines == [origin, str(size), expected, ""], f"{file.name}: body")
            mark, signer, signature = signature.rstrip("\n").split(" ")
            demand((mark, signer) == ("\u2014", origin), f"{file.name}: signature line")
            signature = base64.b64decode(signature, validate=True)
            demand(signature[:4].hex() == hash_, f"{file.name}: key hash")
            openssl_verifies(pathlib.Path(name), typed[1:], body.encode(), signature[4:])
    demand(size == len(leaves) or any(f"-{len(leaves)}." in n.name for n in notes), "the last")
    return len(notes)


# 3. Blobs, 6. targets


def references(value):
    """Every `{digest, len}` that a payload holds."""
    if isinstance(value, dict):
        if set(value) == {"digest", "len"}:
            yield value["digest"], value["len"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)


def load_blobs(vectors):
    lines = (vectors / "log" / "blobs.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def check_blobs(vectors):
    held = {}
    for blob in load_blobs(vectors):
        salt, content = bytes.fromhex(blob["salt"]), base64.b64decode(blob["content"])
        demand(len(salt) == 32, "a salt of another size")
        digest = sha256(b"countersign/blob/v1\n", salt, content).hex()
        demand(digest == blob["digest"], f"blob {blob['digest']}: digest")
        demand(len(content) == blob["len"], f"blob {blob['digest']}: length")
        held[digest] = blob["len"]
    named, gone, redacted = set(), set(), set()
    for line, entry in load_log(vectors):
        payload = parse_payload(entry["payload"])
        for digest, length in references(payload):
            demand(digest not in redacted, f"entry {line['seq']}: blob {digest} was redacted")
            demand(held.get(digest, length) == length, f"entry {line['seq']}: blob {digest}")
            (named if digest in held else gone).add(digest)
        if line["namespace"] == "blob.redacted.v1@countersign":
            redacted.update(payload["digests"])
    demand(gone == redacted, "a blob is missing, or is here and was redacted")
    demand(named == set(held), "a blob that nobody names")
    return len(held)


def check_targets(vectors):
    targets = json.loads((vectors / "log" / "targets.json").read_text("utf-8"))
    lines = targets["lines"]
    demand(len(lines) == targets["count"] > 1, "the number of targets")
    names = [line["agent"] for line in lines]
    demand(names == sorted(set(names)), "targets are not sorted")
    leaves = [leaf_hash(canonical(line)) for line in lines]
    demand(root(leaves).hex() == targets["root"], "the root of the targets")
    for index, proof in enumerate(targets["proofs"]):
        demand(proof == hexes(path(index, leaves)), f"the proof of target {index}")
    list_ = [b for b in load_blobs(vectors) if b["digest"] == targets["list"]["digest"]]
    demand(len(list_) == 1, "the list of targets is no blob")
    demand(base64.b64decode(list_[0]["content"]) == canonical(lines), "the list's own bytes")
    requests = [
        parse_payload(entry["payload"])["act"]["targets"]
        for line, entry in load_log(vectors)
        if line["statement_id"] == targets["command"]
    ]
    signed = {name: targets[name] for name in ("count", "root", "list")}
    demand(requests == [signed], "the request signed other targets")
    return len(lines)


# 5. Rights: changes, claims, tokens, policies, and what authorizations say


COMMON = {"signer", "nonce", "made_at", "ledger", "seen", "change", "rests_on"}

# The secret of the story's one API token, which its holder was shown.
TOKEN_SECRET = bytes([0x17]) * 32


def said_in_log(vectors):
    """Place, time, kind, id and payload of every entry."""
    for line, entry in load_log(vectors):
        kind = line["namespace"].removesuffix(".v1@countersign")
        payload = parse_payload(entry["payload"])
        yield line["seq"], line["time_us"], kind, line["statement_id"], payload


def check_claim(event, ledger, folder):
    """The key's own word that it is this person's, in this ledger."""
    key, claim = base64.b64decode(event["key"]), event["claim"]
    payload, signature = (base64.b64decode(claim[name]) for name in ("payload", "signature"))
    said = parse_payload(payload)
    demand(said["principal"] == event["principal"], "a claim for somebody else")
    demand(said["ledger"] == ledger, "a claim for another ledger")
    demand(said["signer"] == sha256(key).hex(), "a claim of another key")
    namespace = b"key.claimed.v1@countersign"
    signed_with, named, inner = parse_sshsig(signature)
    demand((signed_with, named) == (key, namespace), "a claim signed by another key")
    ssh_keygen_verifies(folder, said["principal"], namespace, key, signature, payload)
    tbs = signed_data(namespace, payload)
    openssl_verifies(folder, *raw_ed25519(key, inner, tbs))


def seated(seats, people, members):
    """Whether these people can fill the seats, one each: every way is tried."""
    if not seats:
        return True
    may_sit = set().union(*(members.get(whom, set()) for whom in seats[0]))
    return any(seated(seats[1:], people - {who}, members) for who in people & may_sit)


def check_authorized(event, said):
    """Counts again, from what the authorization names alone."""
    requirement, request = event["requirement"], said[event["request_seq"]]
    broken = "break_glass" in requirement
    demand(request["act"].get("break_glass", False) == broken, "another request broke the glass")
    demand(bool(requirement["demands"]) != broken, "nothing is demanded")
    approvals = [said[seq] for seq in event["approvals"]]
    for approval in approvals:
        demand(approval["act"] == request["act"], "an approval of another act")
        demand(approval["policy"] == event["policy"], "an approval under another policy")
    people = {approval["principal"] for approval in approvals} - {request["principal"]}
    members = {line["of"]: set(line["people"]) for line in event["members"]}
    for seats in requirement["demands"]:
        wanted = [one["from"] for one in seats for _ in range(one["approvals"])]
        demand(wanted and seated(wanted, people, members), "a demand is not met")


def check_rights(vectors):
    entries = list(said_in_log(vectors))
    content = {b["digest"]: base64.b64decode(b["content"]) for b in load_blobs(vectors)}
    place = {id_: seq for seq, _, _, id_, _ in entries}
    said = [payload for *_, payload in entries]
    genesis, ledger = said[0], load_ledger(vectors)["ledger_id"]
    checked = 0
    with tempfile.TemporaryDirectory() as name:
        for seq, time, kind, _, event in entries:
            where = f"entry {seq}, {kind}"
            request = None
            checked += "rests_on" in event
            if "rests_on" in event:
                request = said[place[event["change"]]]
                body = parse_payload(content[request["body"]["digest"]])
                demand(body.pop("kind") == kind, f"{where}: the body is of another kind")
                fields = {name: value for name, value in event.items() if name not in COMMON}
                demand(body == fields, f"{where}: it says something else than the body")
                consents = [said[seq] for seq in event["rests_on"]]
                demand(consents[0] == request, f"{where}: it does not begin with its request")
                people = {consent["principal"] for consent in consents}
                demand(len(people) >= genesis["threshold"], f"{where}: too few consents")
            if kind == "key.added":
                check_claim(event, ledger, pathlib.Path(name))
            elif kind == "policy.published":
                text = content[request["document"]["digest"]]
                digest = sha256(b"countersign/policy/v1\n", text).hex()
                demand(digest == event["policy"], f"{where}: the digest of its text")
            elif kind == "token.issued":
                digest = sha256(b"countersign/token/v1\n", TOKEN_SECRET).hex()
                demand(digest == event["secret"], f"{where}: the digest of its secret")
            elif kind == "command.authorized":
                check_authorized(event, said)
                owed = event["requirement"].get("break_glass")
                opens = entries[seq + 1][2] == "review.opened"
                demand(opens == (owed is not None), f"{where}: its review")
                if owed:
                    due_at = time + owed["review_ms"] * 1000
                    demand(said[seq + 1]["due_at"] == due_at, f"{where}: when the review is due")
            elif kind == "command.voted_down":
                against = [said[seq] for seq in event["rejections"]]
                demand(all(no.get("vote") for no in against), f"{where}: a no that is no vote")
            elif kind.startswith("command.") and "token" in event:
                gateway = sha256(base64.b64decode(genesis["gateway_key"])).hex()
                demand(event["signer"] == gateway, f"{where}: not by the gateway")
            else:
                continue
            checked += 1
    demand(checked > 20, "there is too little of it")
    return checked


SECTIONS = {
    "canonical": check_canonical,
    "statements": check_statements,
    "signatures": check_signatures,
    "log": check_log,
    "proofs": check_proofs,
    "checkpoints": check_checkpoints,
    "blobs": check_blobs,
    "targets": check_targets,
    "rights": check_rights,
}


def main():
    parser = argparse.ArgumentParser(description="Checks the golden vectors of countersign.")
    parser.add_argument("--vectors", type=pathlib.Path, default=HERE)
    parser.add_argument("--judge", action="store_true", help="judge payloads from standard input")
    parser.add_argument("section", nargs="*", help=", ".join(SECTIONS))
    arguments = parser.parse_args()
    if arguments.judge:
        for line in sys.stdin:
            print("legal" if is_legal(bytes.fromhex(line.strip())) else "refused")
        return 0
    unknown = set(arguments.section) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    for name in arguments.section or SECTIONS:
        try:
            print(f"{name}: {SECTIONS[name](arguments.vectors)} ok")
        except (Flaw, KeyError, ValueError) as flaw:
            print(f"{name}: {flaw!r}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
