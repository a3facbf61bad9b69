// Nothing to set for the engine: Nitro copies the files that it traces. A Nuxt application is the same.
export default { preset: 'node-server', compatibilityDate: '2026-01-01' }
