import js from "@eslint/js";

// TypeScript knows which names exist (tsconfig.json), so `no-undef` need not. The forms of import and export
// are those that brainseg/ui/modules.py can join.
const FORMS = [
  ["ImportDeclaration[specifiers.length=0]", "import names"],
  ["ImportDefaultSpecifier, ImportNamespaceSpecifier", "import names in braces"],
  ["ExportAllDeclaration, ExportNamedDeclaration[declaration=null]", "export where a name is declared"],
  ["ExportNamedDeclaration > VariableDeclaration[kind!='const']", "export no variable that changes"],
  ["ExportNamedDeclaration > VariableDeclaration[declarations.length!=1]", "export one name at a time"],
  ["ExportNamedDeclaration > * > VariableDeclarator > ObjectPattern", "export one name at a time"],
];

export default [
  { ignores: ["**/.*", "runs", "build", "dist", "artifacts", "site"] },
  js.configs.recommended,
  {
    linterOptions: { reportUnusedDisableDirectives: "error" },
    languageOptions: { ecmaVersion: 2024, sourceType: "module" },
    rules: {
      "no-undef": "off",
      "no-var": "error",
      "prefer-const": "error",
      eqeqeq: ["error", "always", { null: "ignore" }],
      "no-shadow": "error",
      "no-console": "error",
      "max-len": ["error", { code: 110 }],
      "no-restricted-syntax": ["error", "SequenceExpression", "WithStatement"],
    },
  },
  {
    files: ["brainseg/ui/viewer/**/*.js"],
    rules: {
      "no-restricted-syntax": ["error", ...FORMS.map(([selector, message]) => ({ selector, message }))],
    },
  },
];
