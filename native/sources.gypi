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
      "native/cpu/make_device.cpp",
      "native/model/config.cpp",
      "native/model/weights.cpp",
      "native/model/model.cpp",
      "native/model/kv_cache.cpp",
      "native/model/vision.cpp",
      "native/model/decoder.cpp",
      "native/model/prompt.cpp",
      "native/model/embedding_cache.cpp",
      "native/model/sequence.cpp",
      "native/model/scheduler.cpp",
      "native/model/engine.cpp",
      "native/format/quantize.cpp",
      "native/format/dequantize.cpp",
      "native/format/dequantize_iq.cpp",
      "native/format/gguf.cpp"
    ],
    "addon_sources": [
      "native/addon/addon.cpp"
    ],
    "test_sources": [
      "native/test/main.cpp",
      "native/test/test_gguf.cpp",
      "native/test/test_quantize.cpp"
    ]
  }
}
