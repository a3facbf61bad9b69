const { loadModel } = require('node-paligemma')

async function main() {
  const [model, image] = process.argv.slice(2)
  if (!image) throw new Error('Usage: caption MODEL.gguf PICTURE')
  const loaded = await loadModel(model)
  console.log((await loaded.generate({ image, prompt: 'caption en', maxTokens: 32 })).text)
  await loaded.dispose()
}
main().catch((error) => {
  console.error(error.message)
  process.exitCode = 1
})
