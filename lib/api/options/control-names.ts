/** Names of tokens that stand for no text. */
import type { NativeModel } from '../../engine/native'

const known = ['<eos>', '<end_of_turn>', '<pad>', '<bos>', '<unk>', '<image>', '<start_of_turn>', '<mask>']

/** The vocabulary's name of a control token; "<token 107>" where it is none of the usual ones. */
export function controlName(model: NativeModel, id: number): string {
  const is = (name: string): boolean => {
    const ids = model.tokenize(name, true)
    return ids.length === 1 && ids[0] === id
  }
  return known.find(is) ?? `<token ${id}>`
}
