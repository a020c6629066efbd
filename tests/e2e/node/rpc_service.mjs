// The service that rpc_server.mjs serves and rpc_client.mjs calls: one method of each kind.
import { create, createFileRegistry } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
  FileDescriptorProtoSchema,
} from "@bufbuild/protobuf/wkt";

const text = (name, number) => ({ name, number, type: Type.STRING, label: Label.OPTIONAL, jsonName: name });
const method = (name, more = {}) => ({ name, inputType: ".test.Text", outputType: ".test.Text", ...more });
const file = create(FileDescriptorProtoSchema, {
  name: "rpc.proto",
  package: "test",
  syntax: "proto3",
  messageType: [{ name: "Text", field: [text("value", 1)] }],
  service: [
    {
      name: "Peer",
      method: [
        method("Unary"),
        method("Down", { serverStreaming: true }),
        method("Up", { clientStreaming: true }),
        method("Both", { clientStreaming: true, serverStreaming: true }),
        method("Fail"),
        method("Hang"),
        method("Seen"),
      ],
    },
  ],
});
const registry = createFileRegistry(file, () => undefined);

export const Peer = registry.getService("test.Peer");
export const Text = registry.getMessage("test.Text");
