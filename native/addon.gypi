{
  # The addon as node-gyp and prebuildify build it. CMakeLists.txt builds the same from the same list of files.
  "includes": ["sources.gypi"],
  "targets": [
    {
      "target_name": "paligemma",
      "sources": ["<@(engine_sources)", "<@(addon_sources)"],
      "include_dirs": ["<(module_root_dir)/native"],
      "defines": ["NAPI_VERSION=8"],
      "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++17", "-std=gnu++20"],
      # Contraction off: a*b+c must mean the same in the scalar reference on every machine.
      "cflags_cc": ["-std=c++20", "-O3", "-fexceptions", "-frtti", "-fvisibility=hidden", "-ffp-contract=off",
                      "-Wall", "-Wextra"],
      "xcode_settings": {
        "CLANG_CXX_LANGUAGE_STANDARD": "c++20",
        "CLANG_CXX_LIBRARY": "libc++",
        "GCC_ENABLE_CPP_EXCEPTIONS": "YES",
        "GCC_ENABLE_CPP_RTTI": "YES",
        "GCC_OPTIMIZATION_LEVEL": "3",
        "GCC_SYMBOLS_PRIVATE_EXTERN": "YES",
        "MACOSX_DEPLOYMENT_TARGET": "12.0",
        "OTHER_CPLUSPLUSFLAGS": ["-ffp-contract=off"]
      },
      "msvs_settings": {
        "VCCLCompilerTool": {
          "ExceptionHandling": 1,
          "RuntimeTypeInfo": "true",
          "AdditionalOptions": ["/std:c++20", "/fp:precise", "/utf-8"]
        }
      },
      "conditions": [
        ["OS=='linux'", {
          "cflags_cc": ["-fno-semantic-interposition"],
          "ldflags": ["-static-libstdc++", "-static-libgcc", "-Wl,--gc-sections",
                      "-Wl,--version-script=<(module_root_dir)/native/addon/exports.map"],
          "libraries": ["-ldl"]
        }],
        ["OS=='mac'", {
          "sources": ["<@(metal_sources)"],
          "defines": ["PG_METAL"],
          "xcode_settings": { "CLANG_ENABLE_OBJC_ARC": "YES" },
          "libraries": ["-framework Metal", "-framework Foundation"],
          "actions": [{
            "action_name": "msl",
            "inputs": ["<(module_root_dir)/scripts/build-msl.mjs"],
            "outputs": ["<(module_root_dir)/native/gpu/metal/generated/msl.inc"],
            "action": ["node", "<(module_root_dir)/scripts/build-msl.mjs"]
          }]
        }],
        ["OS=='win'", {
          "defines!": ["_HAS_EXCEPTIONS=0"],
          "defines": ["NOMINMAX", "WIN32_LEAN_AND_MEAN"]
        }]
      ]
    }
  ]
}
