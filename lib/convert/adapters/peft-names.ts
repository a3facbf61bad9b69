/** Names of an adapter's tensors, in every form that PEFT and its wrappers write, and what each of them is. */
import { canonicalName } from '../checkpoint/names'

export type PeftTensor =
  /** lora_A or lora_B of a module. */
  | { kind: 'half'; module: string; target: string; side: 'a' | 'b' }
  /** Rows of single tokens that replace those of the embedding. */
  | { kind: 'rows'; module: string; target: string }
  /** A tensor that replaces the base's. */
  | { kind: 'whole'; target: string }
  /** A buffer, a copy of what the base has, or a part that the model does not use. */
  | { kind: 'nothing' }
  /** LoRA in a form that is no sum of two matrices; `why` says which. */
  | { kind: 'unsupported'; why: string }

// What wrappers around the model, or around a part of it, put into names.
const wrappers = /(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\./g

/** `<module>.weight`, as {@link canonicalName} spells it; unknown names as they are. */
const weightOf = (module: string): string => canonicalName(`${module}.weight`) ?? `${module}.weight`

/** Saved state dicts leave the adapter's own name ("default") out, in-memory ones have it: `[^.]+` at the ends. */
export function peftTensor(fullName: string): PeftTensor {
  const name = fullName.replace(wrappers, '').replace(/^(?:module\.|base_model\.model\.)+/, '')
  const half = /^(.+)\.lora_([AB])(?:\.[^.]+)?\.weight$/.exec(name)
  if (half) {
    const [, module, which] = half as unknown as [string, string, 'A' | 'B']
    const side = which === 'A' ? 'a' : 'b'
    return /(?:^|\.)lm_head$/.test(module)
      ? { kind: 'unsupported', why: "PaliGemma's head is its embedding, which would stay as it is" }
      : { kind: 'half', module, target: weightOf(module), side }
  }
  if (/(?:^|\.)lora_embedding_/.test(name))
    return {
      kind: 'unsupported',
      why: 'LoRA of the embedding changes look-ups and not the head, which is the same matrix'
    }
  if (/(?:^|\.)lora_/.test(name)) return { kind: 'unsupported', why: 'no lora_A and lora_B of a linear layer' }
  if (/\.(?:trainable_tokens_original|token_indices)(?:\.|$)|\.original_module\./.test(name)) return { kind: 'nothing' }
  const rows = /^(.+?)(?:\.token_adapter)?\.trainable_tokens_delta(?:\.[^.]+)?$/.exec(name)
  if (rows) return { kind: 'rows', module: rows[1]!, target: weightOf(rows[1]!) }
  return whole(name.replaceAll('.base_layer.', '.').replace('.token_adapter.', '.'))
}

/** Where a module was saved under an adapter's name, that name stands before the module's own parts. */
function whole(name: string): PeftTensor {
  const spellings = [
    name.replace(/\.modules_to_save(?=\.)/, ''),
    name.replace(/\.modules_to_save\.[^.]+(?=\.)/, '')
  ].map(canonicalName)
  const target = spellings.find((spelling) => spelling === undefined || isWeight(spelling)) ?? spellings[0]
  // SigLIP's pooling head has no part in PaliGemma.
  if (target === undefined || /^vision\.head\./.test(target)) return { kind: 'nothing' }
  return isWeight(target) ? { kind: 'whole', target } : { kind: 'unsupported', why: 'PaliGemma has no such tensor' }
}

const weights = [
  /^text\.(?:embed_tokens|norm)\.weight$/,
  /^text\.layers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)\.weight$/,
  /^text\.layers\.\d+\.(?:input|post_attention|pre_feedforward|post_feedforward)_layernorm\.weight$/,
  /^vision\.(?:embeddings\.(?:patch|position)_embedding|post_layernorm|head)\.\w+/,
  /^vision\.encoder\.layers\.\d+\.(?:layer_norm[12]|self_attn\.(?:[qkv]|out)_proj|mlp\.fc[12])\.(?:weight|bias)$/,
  /^(?:projector|retrieval|lm_head)\.(?:weight|bias)$/
]
const isWeight = (canonical: string): boolean => weights.some((pattern) => pattern.test(canonical))
