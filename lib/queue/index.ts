/** `node-paligemma/queue`: pictures for many machines, over BullMQ and Redis. */
export type { ConnectionOptions } from './connection'
export type { JobResult, PictureJob } from './jobs'
export type { JobProgress } from './progress'
export { createQueue, PictureQueue, type AddManyOptions, type QueueCounts, type QueueOptions } from './queue'
export { readShards, type ShardRow } from './shards'
export { PictureWorker, startWorker, type WorkerOptions } from './worker'
export type { ResultFields } from '../api/many/rows'
