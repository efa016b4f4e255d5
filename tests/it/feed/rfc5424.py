"""Reads syslog messages by the grammar of RFC 5424, and nothing of ours.

    python3 rfc5424.py frames|datagram < bytes      frames: octet counting of RFC 6587
prints one JSON object a message; ends with 1 at the first byte that the grammar does not have.
"""
import json
import re
import sys

HEADER = re.compile(
    rb"<(?P<pri>(?:0|[1-9][0-9]{0,2}))>(?P<version>[1-9][0-9]{0,2}) "
    rb"(?P<time>-|\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)) "
    rb"(?P<host>[\x21-\x7e]{1,255}) (?P<app>[\x21-\x7e]{1,48}) (?P<proc>[\x21-\x7e]{1,128}) (?P<msgid>[\x21-\x7e]{1,32}) ")
NAME = rb'[\x21\x23-\x3c\x3e-\x5c\x5e-\x7e]{1,32}'
PARAM = re.compile(rb' (' + NAME + rb')="((?:[^"\\\]]|\\.)*)"')
ELEMENT = re.compile(rb"\[(" + NAME + rb")((?: " + NAME + rb'="(?:[^"\\\]]|\\.)*")*)\]')


def message(data):
    head = HEADER.match(data)
    assert head, data[:200]
    assert int(head["pri"]) <= 191
    at, elements = head.end(), {}
    if data[at:at + 1] == b"-":
        at += 1
    else:
        while element := ELEMENT.match(data, at):
            name = element[1].decode()
            assert name not in elements, name
            elements[name] = {key.decode(): re.sub(rb'\\(["\\\]])', rb"\1", value).decode()
                              for key, value in PARAM.findall(element[2])}
            at = element.end()
        assert elements, data[at:at + 100]
    text = data[at:]
    assert text == b"" or text[:1] == b" ", text[:100]
    out = {key: value.decode() for key, value in head.groupdict().items()}
    return out | {"data": elements, "text": text[1:].decode("ascii")}


stream = sys.stdin.buffer.read()
if sys.argv[1] == "datagram":
    print(json.dumps(message(stream)))
while sys.argv[1] == "frames" and stream:
    length = re.match(rb"([1-9][0-9]*) ", stream)
    assert length, stream[:100]
    end = length.end() + int(length[1])
    assert end <= len(stream), "the last frame is cut"
    print(json.dumps(message(stream[length.end():end])))
    stream = stream[end:]
