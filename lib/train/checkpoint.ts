/** The state of a training run in one file, which is there as a whole or not at all. */
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import { makeFolder, writeOutput } from '../base/output-file'
import { Safetensors } from '../formats/safetensors'
import { type FloatTensor, safetensorsBytes } from '../formats/safetensors-writer'
import { toFloat32 } from '../formats/source'
import type { FitEvaluation } from './options'

/** What must be the same for a run to go on, by the names of the options. */
export type RunSettings = Readonly<Record<string, unknown>>

export interface RunState {
  /** Steps that are done. */
  step: number
  losses: number[]
  evaluation: FitEvaluation[]
}

export interface Checkpoint extends RunState {
  /** By the engine's names, moments too. */
  tensors: Map<string, FloatTensor>
}

const version = 1
const fileOf = (folder: string): string => join(folder, 'checkpoint.safetensors')

export async function writeCheckpoint(
  folder: string,
  settings: RunSettings,
  { tensors, ...state }: Checkpoint
): Promise<void> {
  await makeFolder(folder, 'checkpoint')
  const bytes = safetensorsBytes(tensors, { paligemma_fit: JSON.stringify({ version, settings, ...state }) })
  await writeOutput(fileOf(folder), bytes, { option: 'checkpoint' })
}

/**
 * undefined where the folder holds none.
 * @throws PaliGemmaError ERR_INVALID_OPTION where data or options are others than those of the checkpoint
 */
export async function readCheckpoint(folder: string, settings: RunSettings): Promise<Checkpoint | undefined> {
  const file = fileOf(folder)
  if (!(await stat(file).catch(() => undefined))) return undefined
  const source = await Safetensors.openFiles([file])
  try {
    const state = parse(file, source.metadata['paligemma_fit'])
    for (const [name, before] of Object.entries(state.settings)) {
      const now = JSON.stringify(settings[name])
      if (JSON.stringify(before) === now) continue
      throw new PaliGemmaError(
        'ERR_INVALID_OPTION',
        `Expected ${name} as in the run that ${file} belongs to (${JSON.stringify(before)}) but received ${now}; ` +
          'give the same, or another checkpoint folder'
      )
    }
    const tensors = new Map<string, FloatTensor>()
    for (const tensor of source.tensors) {
      const bytes = Buffer.alloc(tensor.bytes)
      await tensor.read(0, bytes)
      tensors.set(tensor.name, { shape: tensor.shape, data: toFloat32(bytes, tensor.type) })
    }
    const { step, losses, evaluation } = state
    return { step, losses, evaluation, tensors }
  } finally {
    await source.close()
  }
}

function parse(file: string, text: unknown): RunState & { settings: Record<string, unknown> } {
  try {
    const state = JSON.parse(String(text)) as RunState & { version: number; settings: Record<string, unknown> }
    if (state.version === version && Number.isSafeInteger(state.step) && state.losses.length === state.step)
      return state
  } catch {
    // said below
  }
  throw new PaliGemmaError(
    'ERR_MODEL_INVALID',
    `${file} is no checkpoint that this version can go on from; remove it, or give another checkpoint folder`
  )
}
