"""How lit runs the FileCheck tests: `lit tests/lit`, from any folder, with the tools of the Python that runs lit."""

import os
import sys

import lit.formats

config.name = "amk"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".test"]
config.excludes = ["Inputs"]
config.test_source_root = os.path.dirname(__file__)
config.test_exec_root = os.path.join(config.test_source_root, "Output")

# lit runs tests in an empty environment. What they may see, beside PATH:
#   HOME, AMK_CACHE_DIR: the cache of the user must not decide a test
#   PYTHONWARNINGS: a deprecation in xDSL is an error here as it is in pytest
config.environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
config.environment["AMK_CACHE_DIR"] = os.path.join(config.test_exec_root, "cache")
config.environment["HOME"] = config.test_exec_root
config.environment["HF_HUB_OFFLINE"] = "1"
config.environment["OMP_NUM_THREADS"] = "1"
for name in ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"):
    if name in os.environ:
        config.environment[name] = os.environ[name]

# ROUNDTRIP FILE: custom syntax -> generic -> custom, checked against FILE; and every chunk on its own.
roundtrip = "amk-opt %s --split-input-file --print-op-generic | amk-opt --split-input-file | filecheck %s"
config.substitutions.append(("ROUNDTRIP", roundtrip))
# GENERIC: the generic form, checked against the lines that start with CHECK-GENERIC.
config.substitutions.append(
    ("GENERIC", "amk-opt %s --split-input-file --print-op-generic | filecheck %s --check-prefix=CHECK-GENERIC")
)

if any(os.path.exists(node) for node in ("/dev/nvidiactl", "/dev/dxg")):
    config.available_features.add("gpu")
