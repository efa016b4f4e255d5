"""Makes table.json from a compiled OCSF schema: the classes and objects that the feed uses.

    python3 extract.py SCHEMA.json > table.json     the compiled schema of one version, as the
                                                    PyPI package ocsf-json-schema carries it
    python3 extract.py --check VERSION < messages   checks messages, a line each, with that package
                                                    and jsonschema, which know nothing of the table.
                                                    COUNTERSIGN_OCSF_SAMPLE=FILE cargo test -p countersign
                                                    --test it feed::ocsf writes such messages

The schema is OCSF's own (https://schema.ocsf.io), under the Apache License 2.0.
"""
import json
import sys

CLASSES = ["process_activity", "authentication", "authorize_session", "entity_management",
           "user_access", "group_management", "application_lifecycle"]
OBJECTS = ["metadata", "product", "actor", "user", "process", "file", "fingerprint", "device",
           "managed_entity", "policy", "group", "service"]
PLAIN = {"integer_t": "integer", "long_t": "long", "timestamp_t": "long", "boolean_t": "boolean",
         "float_t": "float", "json_t": "json"}


def attributes(thing):
    out = {}
    for name, one in sorted(thing["attributes"].items()):
        # What a profile adds is only there in messages that name the profile; ours name none.
        if one.get("profile") or name in ("cloud", "osint"):
            continue
        kind = one.get("object_type") if one["type"] == "object_t" else PLAIN.get(one["type"], "string")
        entry = {"type": kind}
        if one["type"] == "object_t":
            entry["object"] = True
        if one.get("is_array"):
            entry["array"] = True
        if one.get("requirement") == "required":
            entry["required"] = True
        if one.get("enum") and entry["type"] in ("integer", "long"):
            entry["enum"] = sorted(int(number) for number in one["enum"])
        out[name] = entry
    return out


def extract(path):
    schema = json.load(open(path))
    table = {"version": schema["version"], "classes": {}, "objects": {}}
    for name in CLASSES:
        one = schema["classes"][name]
        table["classes"][str(one["uid"])] = {"name": name, "attributes": attributes(one),
                                             "constraints": one.get("constraints") or {}}
    for name in OBJECTS:
        one = schema["objects"][name]
        table["objects"][name] = {"attributes": attributes(one), "constraints": one.get("constraints") or {}}
    json.dump(table, sys.stdout, sort_keys=True, separators=(",", ":"))
    print()


def check(version):
    from jsonschema import Draft202012Validator
    from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
    schemas = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version))
    known, bad, count = {}, 0, 0
    for line in sys.stdin:
        message = json.loads(line)
        uid, count = message["class_uid"], count + 1
        if uid not in known:
            name = schemas.lookup_class_name_from_uid(uid)
            known[uid] = Draft202012Validator(schemas.get_class_schema(class_name=name, profiles=[]))
        for error in known[uid].iter_errors(message):
            bad += 1
            where = "/".join(map(str, error.path))
            print(f"{message['metadata']['event_code']}: {where}: {error.message[:200]}")
    print(f"{count} messages, {bad} findings")
    sys.exit(bool(bad))


if sys.argv[1] == "--check":
    check(sys.argv[2])
else:
    extract(sys.argv[1])
