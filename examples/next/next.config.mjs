// Nothing here is for node-paligemma. Should an error name it: serverExternalPackages: ['node-paligemma']
export default { output: 'standalone' }
