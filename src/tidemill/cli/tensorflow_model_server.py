"""The command `tensorflow_model_server`: `tidemill serve` under the name and with the flags that start lines have."""

from __future__ import annotations

import sys

from tidemill import __version__
from tidemill.cli import main as cli

HELP = """Usage: tensorflow_model_server --model_name=NAME --model_base_path=DIR [--rest_api_port=PORT] [--port=PORT]

  TensorFlow Serving's start line, served by Tidemill: `tidemill serve --help` has all that can be set.

  --model_name=NAME        name of the model [default: default]
  --model_base_path=DIR    folder of the model's versions, or the one above it; one without versions is version 1
  --model_config_file=FILE the models to serve, in the place of the two; read again with
                           --model_config_file_poll_wait_seconds=N
  --rest_api_port=PORT     REST, and gRPC as well [default: none]
  --port=PORT              gRPC, and REST as well [default: 8500]
  --ssl_config_file=FILE   TLS for every port, REST included, by the text form of SSLConfig
  --grpc_socket_path=PATH  gRPC at a Unix socket too
  --auth_key_file=FILE     ask for keys, those of the file (a line for each: TENANT:KEY) among them
  --version                print the version and end
  --rest_api_timeout_in_ms, --tensorflow_intra_op_parallelism, --enable_batching and others as they are

  Listens on 127.0.0.1 and asks for no key without --auth_key_file; others reach it with --host=0.0.0.0 --insecure.
"""


def main() -> None:
    """The entry point of the command."""
    arguments = sys.argv[1:]
    if any(each.lstrip("-") in {"help", "h"} for each in arguments):
        print(HELP, end="")
        sys.exit(0)
    if any(each.lstrip("-") in {"version", "version=true"} for each in arguments):
        print(f"Tidemill {__version__}, which follows TensorFlow Serving's start line")
        sys.exit(0)
    cli.prepare()
    sys.exit(cli.run(["serve", "--model_name=default", *arguments]))
