/**
 * Pictures and queries as vectors: for later requests (`encodeImage`) and for retrieval (`embedImage`, `embedText`).
 */
import type { PlainFloats } from '../../base/plain-memory'
import type { Taken } from '../../base/call'
import { compactInJson } from '../../base/compact-json'
import { PaliGemmaError } from '../../base/errors'
import { untilAborted } from '../../base/signals'
import { definedOnly, type ModelHost } from '../request/host'
import type { ImageEmbedding, ImageInput } from '../../images/image-input'
import type { MultiVector, RetrievalFlavour } from '../../retrieval/vectors'
import { embedRequest, queryTexts } from './embed-request'
import type { EmbedOptions, EncodeImageOptions } from '../options/options'

const nothing = (): PaliGemmaError => new PaliGemmaError('ERR_INTERNAL', 'The engine gave no embedding')

export async function encodeImage(
  host: ModelHost,
  image: ImageInput,
  options: Taken<EncodeImageOptions>
): Promise<ImageEmbedding & { data: PlainFloats }> {
  const { signal } = options
  host.throwIfDisposed()
  const adapters = await host.adapterUses(options.adapters)
  const [prepared] = await untilAborted(host.prepareImages({ image }, signal), signal)
  const { transform, native: source } = prepared!
  const request = definedOnly({ kind: 'encodeImage' as const, images: [source], prompt: '', adapters })
  // an embedding that was one already comes back as it is
  const data = (source.embedding as PlainFloats | undefined) ?? (await host.run(request, { signal }))?.embedding
  if (!data) throw nothing()
  return compactInJson({
    data,
    tokens: host.info.imageTokens,
    hidden: host.info.textHidden,
    ...(transform && { transform })
  })
}

/** A page's or a query's vectors; `defaultFlavour` where the options name none. */
export async function embed(
  host: ModelHost,
  source: { image: ImageInput } | { query: string },
  options: Taken<EmbedOptions>,
  defaultFlavour: RetrievalFlavour
): Promise<MultiVector & { data: PlainFloats }> {
  const { flavour = defaultFlavour, signal } = options
  const adapters = await host.adapterUses(options.adapters)
  const request = embedRequest(flavour, 'query' in source ? source.query : undefined)
  return await host.admit(async () => {
    host.throwIfDisposed()
    const images = await untilAborted(host.prepareImages('image' in source ? source : {}, signal), signal)
    const pictures = images.map(({ native }) => native)
    const end = await host.run(definedOnly({ kind: 'embed' as const, images: pictures, ...request, adapters }), {
      signal
    })
    if (!end?.embedding) throw nothing()
    const dims = host.info.retrievalDims
    const vectors = { data: end.embedding, tokens: end.embedding.length / dims, dims }
    const [page] = images
    if (page)
      return compactInJson({
        ...vectors,
        imageTokens: host.info.imageTokens,
        ...(page.transform && { transform: page.transform })
      })
    const pieces = host.model.tokenize(request.prompt, false).map((id) => host.model.detokenize([id]))
    return compactInJson({ ...vectors, texts: queryTexts(request, pieces) })
  })
}
