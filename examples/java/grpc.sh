#!/usr/bin/env bash
# Builds and runs Grpc.java with what Debian and Ubuntu package:
#
#   apt-get install libgrpc-java libprotobuf-java libprotobuf-dev libguava-java libnetty-java \
#     libperfmark-java libopencensus-java libgeronimo-annotation-1.3-spec-java \
#     protobuf-compiler protobuf-compiler-grpc-java-plugin default-jdk-headless
#
# ROOT is where those packages lie when they were unpacked elsewhere (dpkg-deb -x PACKAGE.deb ROOT), BUILD where the
# classes go.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=${ROOT:-}
build=${BUILD:-$(mktemp -d)}
jars=$root/usr/share/java
libraries=$(ls -d "$root"/usr/lib/*-linux-gnu* 2>/dev/null | paste -sd: || true)
protoc() { LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "${root:-}/usr/bin/protoc" "$@"; }

if [ ! -f "$build/classes/Grpc.class" ]; then
  mkdir -p "$build/source" "$build/classes"
  protoc -I "$here/../proto" -I "$root/usr/include" --java_out="$build/source" --grpc-java_out="$build/source" \
    --plugin=protoc-gen-grpc-java="$root/usr/bin/grpc_java_plugin" "$here"/../proto/*.proto
  find "$build/source" -name '*.java' > "$build/files"
  javac -nowarn -proc:none -cp "$jars/*" -d "$build/classes" @"$build/files" "$here/Grpc.java"
fi
exec java -cp "$build/classes:$jars/*" Grpc
