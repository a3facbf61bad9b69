/** Adapters of strangers: any settings, any names of tensors. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { PaliGemmaError } from '../../../lib/base/errors'
import { peftSettings } from '../../../lib/convert/adapters/peft-config'
import { peftTensor } from '../../../lib/convert/adapters/peft-names'
import { Fields } from '../../../lib/formats/fields'

const numRuns = Number(process.env.PALIGEMMA_FUZZ_RUNS ?? 400)

describe('adapter_config.json of any content', () => {
  const number = fc.oneof(fc.integer(), fc.double(), fc.jsonValue())
  const pattern = fc.dictionary(fc.constantFrom('q_proj', '.*q_proj', '(a+)+$', 'layers.0.*', '['), number)
  const fields = {
    peft_type: fc.oneof(fc.constantFrom('LORA', 'TRAINABLE_TOKENS'), fc.jsonValue()),
    ...{ r: number, lora_alpha: number, rank_pattern: fc.oneof(pattern, fc.jsonValue()), alpha_pattern: pattern },
    ...{ use_rslora: fc.oneof(fc.boolean(), fc.jsonValue()), init_lora_weights: fc.oneof(fc.boolean(), fc.string()) },
    trainable_token_indices: fc.oneof(
      fc.array(fc.nat(9)),
      fc.dictionary(fc.string(), fc.array(fc.nat(9))),
      fc.jsonValue()
    ),
    ...{ use_dora: fc.jsonValue(), some_new_field: fc.jsonValue(), base_model_name_or_path: fc.jsonValue() }
  }
  it('is read, or refused by a coded error that names the file', { tags: ['slow'] }, () => {
    const module = fc.constantFrom('language_model.model.layers.0.self_attn.q_proj', 'a'.repeat(40), 'x.embed_tokens')
    const property = fc.property(
      fc.record(fields, { requiredKeys: [] }),
      module,
      fc.integer({ min: 1, max: 64 }),
      (json, name, rank) => {
        try {
          const settings = peftSettings(new Fields('adapter_config.json', json as Record<string, unknown>))
          expect(Number.isNaN(settings.scaleOf(name, rank))).toBe(false)
          const tokens = settings.tokensOf(name)
          if (tokens) expect(tokens.indices.every((index) => Number.isSafeInteger(index) && index >= 0)).toBe(true)
        } catch (error) {
          if (!(error instanceof PaliGemmaError)) throw error
          expect(error.code).toMatch(/^ERR_MODEL_(?:INVALID|UNSUPPORTED)$/)
          expect(error.message).toContain('adapter_config.json')
        }
      }
    )
    fc.assert(property, { numRuns })
  })

  it('a setting that nobody knows is never passed over', () => {
    const on = fc.jsonValue().filter((value) => {
      const empty = value !== null && typeof value === 'object' && Object.keys(value).length === 0
      return value !== null && value !== false && !empty
    })
    const property = fc.property(on, (value) => {
      expect(() => peftSettings(new Fields('a.json', { peft_type: 'LORA', a_new_field: value }))).toThrow(/a_new_field/)
    })
    fc.assert(property, { numRuns })
  })
})

describe('names of tensors', () => {
  it('of any text are told apart in no time; a known module is known through every wrapper', () => {
    const word = fc.constantFrom(
      ...['base_model', 'model', 'module', '_orig_mod', 'lora_A', 'lora_B', 'weight', 'default', 'modules_to_save'],
      ...['embed_tokens', 'q_proj', 'layers', '0', 'language_model', 'base_layer', 'token_adapter', '', 'é']
    )
    fc.assert(
      fc.property(fc.array(word, { maxLength: 40 }), (words) => {
        expect(['half', 'rows', 'whole', 'nothing', 'unsupported']).toContain(peftTensor(words.join('.')).kind)
      }),
      { numRuns }
    )
    const wrapper = fc.array(fc.constantFrom('module.', 'base_model.model.', '_orig_mod.'), { maxLength: 3 })
    fc.assert(
      fc.property(wrapper, fc.constantFrom('', '.default', '.x'), fc.constantFrom('A', 'B'), (outer, own, side) => {
        const name = `${outer.join('')}language_model.model.layers.3.mlp.up_proj.lora_${side}${own}.weight`
        expect(peftTensor(name)).toMatchObject({
          kind: 'half',
          target: 'text.layers.3.mlp.up_proj.weight',
          side: side.toLowerCase()
        })
      }),
      { numRuns }
    )
  })
})
