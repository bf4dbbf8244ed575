Pod::Spec.new do |spec|
  spec.name = 'LesionCore'
  spec.version = '1.0.0'
  spec.summary = 'From a picture to the decision of a bundled engine: resize, checks, self-test.'
  spec.homepage = 'https://example.com/lesion'
  spec.license = 'Apache-2.0'
  spec.author = 'lesiontk'
  spec.source = { :path => '.' }
  spec.source_files = '*.swift'
  spec.ios.deployment_target = '17.0'
  spec.swift_version = '5.0'
end
