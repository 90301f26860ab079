// Is it valid HTML?

const config = {
  root: true,
  extends: ["html-validate:standard", "html-validate:document", "html-validate:a11y"],
};

export function html(HtmlValidate, text, faults) {
  const report = new HtmlValidate(config).validateStringSync(text);
  for (const result of report.results) {
    for (const { line, column, ruleId, message } of result.messages) {
      faults.add("html", `line ${line}, column ${column}: ${message} (${ruleId})`);
    }
  }
}
