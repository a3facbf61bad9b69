/** What users of the package see of its types: the exports of its entry points, and the members that these lead to. */
import { existsSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import ts from 'typescript'

const root = join(__dirname, '..', '..')

/** Exports by their names, members as `Interface.member`. */
export interface PublicTypes {
  /** Those with a note of their own. */
  noted: string[]
  /** Those without, with their place: `lib/index.ts:12 Interface.member`. */
  bare: string[]
}

/** Of files by their path from the root. Libraries' types are left out: they are not ours, and take seconds to read. */
export function readProgram(files: readonly string[]): ts.Program {
  const options: ts.CompilerOptions = { noLib: true, types: [], target: ts.ScriptTarget.ES2022 }
  const host = ts.createCompilerHost(options, /* setParentNodes */ true)
  host.resolveModuleNameLiterals = (literals, from) =>
    literals.map(({ text }) => {
      const place = join(dirname(from), text)
      const file = text.startsWith('.') && [`${place}.ts`, join(place, 'index.ts')].find((one) => existsSync(one))
      return { resolvedModule: file ? { resolvedFileName: file, extension: '.ts' } : undefined }
    })
  const names = files.map((file) => join(root, file))
  return ts.createProgram(names, options, host)
}

type Member = ts.TypeElement | ts.ClassElement | ts.ObjectLiteralElementLike | ts.ParameterPropertyDeclaration
type Holder = ts.InterfaceDeclaration | ts.ClassDeclaration | ts.TypeLiteralNode | ts.ObjectLiteralExpression

const hasNote = (node: ts.Node): boolean => ts.getJSDocCommentsAndTags(node).some(ts.isJSDoc)
const isPrivate = (node: ts.NamedDeclaration): boolean =>
  (node.name !== undefined && ts.isPrivateIdentifier(node.name)) ||
  (ts.getCombinedModifierFlags(node) & ts.ModifierFlags.Private) !== 0 ||
  ts.getJSDocTags(node).some(({ tagName }) => tagName.text === 'internal')

/** The one with a body, where signatures before it say how it may be called. */
function isHiddenByOverloads(node: ts.Declaration, others: readonly ts.Node[]): boolean {
  if (!(ts.isMethodDeclaration(node) || ts.isFunctionDeclaration(node)) || !node.body) return false
  return others.some(
    (other) => other !== node && (other as ts.NamedDeclaration).name?.getText() === node.name?.getText()
  )
}

/** With the properties that a class's constructor declares among its parameters. */
function membersOf(holder: Holder): Member[] {
  const members: readonly Member[] = ts.isObjectLiteralExpression(holder) ? holder.properties : holder.members
  const constructors = members.filter(ts.isConstructorDeclaration)
  const parameters = constructors.flatMap(({ parameters }) => [...parameters])
  const properties = parameters.filter((one) => ts.isParameterPropertyDeclaration(one, one.parent))
  return [...members, ...(properties as ts.ParameterPropertyDeclaration[])].filter(
    (member) => !isPrivate(member) && !isHiddenByOverloads(member, members)
  )
}

/**
 * What the note of its holder explains: members of an object written on one line (`{ rows: number; columns: number }`),
 * and those that tell one form of several apart, by one literal (`type: 'int8'`) or by nothing (`error?: undefined`).
 */
function isExplainedAbove(member: Member): boolean {
  const { parent } = member
  const oneLine = ts.isTypeLiteralNode(parent) && !parent.getText().includes('\n')
  const type = ts.isPropertySignature(member) ? member.type : undefined
  return oneLine || (type !== undefined && (ts.isLiteralTypeNode(type) || type.kind === ts.SyntaxKind.UndefinedKeyword))
}

/** The exports of an entry point, and every member that a type of the package leads to from there. */
export function publicTypes(program: ts.Program, entry: string): PublicTypes {
  const checker = program.getTypeChecker()
  const found: PublicTypes = { noted: [], bare: [] }
  const seen = new Set<ts.Node>()

  function count(node: ts.Node, name: string): void {
    if (hasNote(node)) return void found.noted.push(name)
    const file = node.getSourceFile()
    const line = file.getLineAndCharacterOfPosition(node.getStart()).line + 1
    found.bare.push(`${relative(root, file.fileName)}:${line} ${name}`)
  }

  function declarationsOf(symbol: ts.Symbol | undefined): ts.Declaration[] {
    const aliased = symbol && symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
    const all = aliased?.declarations ?? []
    return all.filter((one) => !isHiddenByOverloads(one, all))
  }

  const follow = (name: ts.Node): void => declarationsOf(checker.getSymbolAtLocation(name)).forEach(visit)

  function visitMembers(holder: Holder, above: string): void {
    for (const member of membersOf(holder)) {
      const name = `${above}.${member.name?.getText() ?? ''}`
      if (member.name && !isExplainedAbove(member)) count(member, name)
      visitTypes(member, name)
    }
  }

  /** The types that a declaration is written with: not what it does, and not the patterns of a conditional type. */
  function visitTypes(node: ts.Node, above: string): void {
    if (ts.isTypeReferenceNode(node)) follow(node.typeName)
    if (ts.isTypeQueryNode(node)) follow(node.exprName)
    if (ts.isTypeLiteralNode(node)) visitMembers(node, above)
    else if (ts.isConditionalTypeNode(node)) for (const one of [node.trueType, node.falseType]) visitTypes(one, above)
    else if (!ts.isBlock(node) && !ts.isExpression(node)) ts.forEachChild(node, (child) => visitTypes(child, above))
  }

  function visit(declaration: ts.Declaration): void {
    if (seen.has(declaration) || isPrivate(declaration)) return
    seen.add(declaration)
    const name = ts.getNameOfDeclaration(declaration)?.getText() ?? ''
    const given = ts.isVariableDeclaration(declaration) ? declaration.initializer : undefined
    const value = given && ts.isAsExpression(given) ? given.expression : given
    if (ts.isInterfaceDeclaration(declaration) || ts.isClassDeclaration(declaration)) {
      for (const base of declaration.heritageClauses?.flatMap(({ types }) => types) ?? []) {
        follow(base.expression)
        for (const argument of base.typeArguments ?? []) visitTypes(argument, name)
      }
      visitMembers(declaration, name)
    } else if (value && ts.isObjectLiteralExpression(value)) visitMembers(value, name)
    else visitTypes(declaration, name)
  }

  const module = checker.getSymbolAtLocation(program.getSourceFile(join(root, entry))!)!
  for (const symbol of checker.getExportsOfModule(module))
    for (const declaration of declarationsOf(symbol)) {
      count(ts.isVariableDeclaration(declaration) ? declaration.parent.parent : declaration, symbol.name)
      visit(declaration)
    }
  return found
}
