# SPDX-License-Identifier: Apache-2.0
"""What programs that were built long ago rely on: no field and no enumerator ever changes its number.

All other tests read the same .proto files as the server, and would follow it into any mistake."""

import pathlib
import subprocess

import pytest
from bus import PROTO
from google.protobuf import descriptor_pb2

LIST = pathlib.Path(__file__).resolve().parents[1] / "data" / "wire_fields.txt"
TYPES = {number: name.removeprefix("TYPE_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()}


def type_of(field, entries):
    if field.type_name in entries:
        key, value = entries[field.type_name].field
        return f"map<{type_of(key, {})},{type_of(value, {})}>"
    kind = field.type_name.removeprefix(".") or TYPES[field.type]
    return f"repeated {kind}" if field.label == field.LABEL_REPEATED else kind


def lines_of(message, name):
    entries = {f".{name}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
    for field in message.field:
        arm = f" of {message.oneof_decl[field.oneof_index].name}" if field.HasField("oneof_index") else ""
        yield f"{name}.{field.name} = {field.number} {type_of(field, entries)}{arm}"
    for nested in message.nested_type:
        if not nested.options.map_entry:
            yield from lines_of(nested, f"{name}.{nested.name}")


@pytest.fixture(scope="module")
def declared(tmp_path_factory):
    out = tmp_path_factory.mktemp("wire") / "set"
    files = [str(path.relative_to(PROTO)) for folder in ("mir_api", "mir") for path in PROTO.glob(f"{folder}/**/*.proto")]
    subprocess.run(["protoc", f"-I{PROTO}", f"--descriptor_set_out={out}", *files], check=True)
    lines = []
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        for message in file.message_type:
            lines += lines_of(message, f"{file.package}.{message.name}")
        for enum in file.enum_type:
            lines += [f"{file.package}.{value.name} = {value.number} {enum.name}" for value in enum.value]
        for extension in file.extension:
            of = f"{type_of(extension, {})} extends {extension.extendee.removeprefix('.')}"
            lines.append(f"{file.package}.{extension.name} = {extension.number} {of}")
    return lines


def test_nothing_on_the_wire_changes(declared):
    """Additions are welcome, and join the list with the release that brings them."""
    promised = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    assert len(promised) > 300
    assert [line for line in promised if line not in declared] == []


def test_no_number_is_given_twice(declared):
    taken = [(line.split(" = ")[0].rpartition(".")[0], line.split(" = ")[1].split()[0]) for line in declared
             if not line.split(" = ")[0].rpartition(".")[2].isupper()]
    assert len(taken) == len(set(taken))
