package etcdbackup

import (
	"bytes"
	"encoding/json"

	"google.golang.org/protobuf/encoding/protowire"
)

// uidOf reads the UID out of an API object as an API server stores it: JSON, or "k8s\x00" and a
// runtime.Unknown whose raw bytes are the object in protobuf. It is false for one that is
// encrypted at rest, or that is none.
func uidOf(stored []byte) (string, bool) {
	raw, isProto := bytes.CutPrefix(stored, []byte("k8s\x00"))
	if !isProto {
		var object struct {
			Metadata struct {
				UID string `json:"uid"`
			} `json:"metadata"`
		}
		err := json.Unmarshal(stored, &object)
		return object.Metadata.UID, err == nil && object.Metadata.UID != ""
	}
	// The numbers are those of k8s.io/apimachinery's generated.proto: Unknown.raw, Namespace.metadata, ObjectMeta.uid.
	for _, number := range []protowire.Number{2, 1, 5} {
		var ok bool
		if raw, ok = bytesField(raw, number); !ok {
			return "", false
		}
	}
	return string(raw), len(raw) > 0
}

// bytesField is the first field of that number in a message, which holds bytes.
func bytesField(message []byte, number protowire.Number) ([]byte, bool) {
	for len(message) > 0 {
		n, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return nil, false
		}
		message = message[size:]
		if n == number && kind == protowire.BytesType {
			value, size := protowire.ConsumeBytes(message)
			return value, size >= 0
		}
		if size = protowire.ConsumeFieldValue(n, kind, message); size < 0 {
			return nil, false
		}
		message = message[size:]
	}
	return nil, false
}
