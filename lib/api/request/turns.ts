/** A conversation as what this model knows: it was trained on single turns. */

export interface Turn<Picture> {
  fromUser: boolean
  texts: string[]
  pictures: Picture[]
}

/**
 * The last user's message is the prompt, '' where there is none with text. A follow-up question is about the pictures
 * that
 * were sent before it.
 */
export function lastQuestion<Picture>(turns: readonly Turn<Picture>[]): { prompt: string; pictures: Picture[] } {
  const users = turns.filter(({ fromUser }) => fromUser)
  return {
    prompt: (users.at(-1)?.texts ?? []).join(' ').trim(),
    pictures: users.findLast(({ pictures }) => pictures.length > 0)?.pictures ?? []
  }
}
