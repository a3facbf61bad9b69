# For node-gyp and prebuildify in a clone. The npm package has none: pnpm and Yarn would compile it at installation.
{ "includes": ["native/addon.gypi"] }
