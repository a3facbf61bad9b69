{
  "variables": {
    "engine_sources": [
      "native/base/mapped_file.cpp",
      "native/base/thread_pool.cpp",
      "native/base/default_threads.cpp",
      "native/cpu/cpu_info.cpp",
      "native/cpu/kernels_scalar.cpp",
      "native/cpu/gemm.cpp",
      "native/cpu/attention.cpp",
      "native/cpu/cpu_device.cpp",
      "native/format/quantize.cpp",
      "native/format/gguf.cpp"
    ],
    "addon_sources": [
      "native/addon/addon.cpp"
    ],
    "test_sources": [
      "native/test/main.cpp"
    ]
  }
}
