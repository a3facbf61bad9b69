/** What `node-paligemma/server` exports. */
export { createServer, type Address, type PaliGemmaServer } from './server'
export type { AdaptedModel, CloseOptions, ListenOptions, ServedModel, ServerOptions } from './options'
export type { LineWriter, Logger } from './log'
