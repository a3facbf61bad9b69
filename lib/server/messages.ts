/** A conversation as what this model knows: pictures and one prompt. */
import { lastQuestion, type Turn } from '../api/request/turns'
import { ApiError } from './errors'
import type { ChatMessage } from './schemas/chat'
import type { ResponsesRequest } from './schemas/responses'
import type { Picture } from './schemas/common'

export interface Asked {
  prompt: string
  pictures: Picture[]
}

export function askedInChat(messages: readonly ChatMessage[]): Asked {
  const turns = messages.map(({ role, content }): Turn<Picture> => {
    const parts = typeof content === 'string' ? [{ type: 'text' as const, text: content }] : (content ?? [])
    return {
      fromUser: role === 'user',
      texts: parts.flatMap((part) => (part.type === 'text' ? [part.text] : [])),
      pictures: parts.flatMap((part) => {
        if (part.type !== 'image_url') return []
        return [typeof part.image_url === 'string' ? part.image_url : part.image_url.url]
      })
    }
  })
  return asked(turns, 'messages')
}

export function askedInResponse(input: ResponsesRequest['input']): Asked {
  if (typeof input === 'string') return asked([{ fromUser: true, texts: [input], pictures: [] }], 'input')
  const turns = input.map(({ role, content }): Turn<Picture> => {
    const parts = typeof content === 'string' ? [{ type: 'input_text' as const, text: content }] : content
    return {
      fromUser: role === 'user',
      texts: parts.flatMap((part) => (part.type === 'input_text' ? [part.text] : [])),
      pictures: parts.flatMap((part) => (part.type === 'input_image' && part.image_url ? [part.image_url] : []))
    }
  })
  return asked(turns, 'input')
}

function asked(turns: readonly Turn<Picture>[], param: string): Asked {
  const question = lastQuestion(turns)
  if (question.prompt !== '') return question
  const message = `${param}: Expected a user's message with text, such as "caption en"`
  throw new ApiError(400, 'ERR_INVALID_OPTION', message, { param })
}
