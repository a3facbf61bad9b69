// The window: shows the chosen picture and what the main process says about it.
const [input, text, picture] = ['file', 'text', 'picture'].map((id) => document.getElementById(id))

input.addEventListener('change', async () => {
  const [file] = input.files
  if (!file) return
  picture.src = URL.createObjectURL(file)
  text.textContent = '...'
  const { text: caption, error } = await window.paligemma.caption(await file.arrayBuffer())
  text.textContent = caption ?? error
  picture.alt = caption ?? ''
})
