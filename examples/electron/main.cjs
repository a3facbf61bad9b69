// The main process: owns the model, answers the window.
const { join } = require('node:path')
const { app, BrowserWindow, ipcMain } = require('electron')
const { loadModel } = require('node-paligemma')

/** @type {Promise<import('node-paligemma').PaliGemma>} */
let model

ipcMain.handle('caption', async (_event, bytes) => {
  try {
    return { text: await (await model).caption(new Uint8Array(bytes)) }
  } catch (error) {
    return { error: `${error.code}: ${error.message}` } // an Error would lose its code on the way
  }
})

app.whenReady().then(async () => {
  model = loadModel(process.env.MODEL ?? 'demo')
  if (process.env.CAPTION) {
    console.log(await (await model).caption(process.env.CAPTION))
    return app.quit()
  }
  const window = new BrowserWindow({
    width: 700,
    height: 600,
    webPreferences: { preload: join(__dirname, 'preload.cjs') }
  })
  await window.loadFile(join(__dirname, 'index.html'))
})

let disposed = false
app.on('will-quit', async (event) => {
  if (disposed || !model) return
  event.preventDefault()
  await (await model).dispose()
  disposed = true
  app.quit()
})
app.on('window-all-closed', () => app.quit())
