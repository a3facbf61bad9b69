{
  "variables": {
    "engine_sources": [
      "native/base/mapped_file.cpp",
      "native/base/thread_pool.cpp",
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
