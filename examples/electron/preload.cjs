// All that the window may do.
const { contextBridge, ipcRenderer } = require('electron')

contextBridge.exposeInMainWorld('paligemma', {
  caption: (bytes) => ipcRenderer.invoke('caption', bytes)
})
